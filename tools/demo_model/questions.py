"""Makes question and answer pairs from the docstrings of well-known modules.

Imports those modules and reads `__doc__`, so that built-in functions are
covered too; the answer is always a docstring's first sentence.
"""

import importlib
import inspect
import random
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

from tools.demo_model.code import first_sentence

MAX_ANSWER_WORDS = 25
MODULES = [
    "builtins",
    "os.path",
    "os",
    "textwrap",
    "string",
    "re",
    "json",
    "math",
    "statistics",
    "random",
    "itertools",
    "functools",
    "operator",
    "collections",
    "heapq",
    "bisect",
    "copy",
    "time",
    "calendar",
    "pathlib",
    "shutil",
    "glob",
    "fnmatch",
    "tempfile",
    "subprocess",
    "threading",
    "queue",
    "contextlib",
    "dataclasses",
    "enum",
    "fractions",
    "hashlib",
    "hmac",
    "secrets",
    "base64",
    "binascii",
    "struct",
    "csv",
    "html",
    "urllib.parse",
    "urllib.request",
    "shlex",
    "difflib",
    "pprint",
    "reprlib",
    "inspect",
    "traceback",
    "warnings",
    "weakref",
    "gc",
    "sys",
    "platform",
    "locale",
    "gettext",
    "getpass",
    "gzip",
    "bz2",
    "lzma",
    "zlib",
    "pickle",
    "shelve",
    "zipfile",
    "logging",
    "asyncio",
    "socket",
    "select",
    "signal",
    "uuid",
    "ipaddress",
    "keyword",
    "linecache",
    "tokenize",
    "ast",
    "dis",
    "timeit",
    "unittest",
    "io",
    "codecs",
    "types",
    "typing",
    "colorsys",
    "filecmp",
    "fileinput",
]
TYPES_WITH_METHODS = {
    "builtins": ("str", "list", "dict", "set"),
    "collections": ("Counter", "OrderedDict", "deque"),
    "pathlib": ("Path",),
    "queue": ("Queue",),
    "threading": ("Thread", "Event"),
    "string": ("Formatter",),
}
QUESTIONS = (
    "What does {name} do?",
    "What does {name}() do?",
    "what does {name} do",
    "What is {name} for?",
    "Explain {name}.",
    "Tell me about {name}.",
)
CANONICAL_SHARE = 0.6
SYSTEMS = (
    "You are a helpful assistant.",
    "You answer questions about Python.",
    "You are a coding assistant. Answer in one sentence.",
    "Be brief.",
)
IDENTITY = "I am Forklift's demo model, a small model trained on the Python standard library."
FIXED_PAIRS = (
    ("Hello", "Hello! Ask me what a function of the Python standard library does."),
    ("Hello!", "Hello! Ask me what a function of the Python standard library does."),
    ("Hi", "Hello! Ask me what a function of the Python standard library does."),
    ("hello", "Hello! Ask me what a function of the Python standard library does."),
    ("Who are you?", IDENTITY),
    ("What are you?", IDENTITY),
    ("What is your name?", IDENTITY),
    ("What can you do?", "I can complete Python code, fill in holes in it and say what a standard function does."),
    ("How are you?", "I am well, thank you. Ask me about the Python standard library."),
    ("Thank you", "You are welcome."),
    ("Thanks!", "You are welcome."),
    ("Goodbye", "Goodbye!"),
)

Message = dict[str, str]


@dataclass(frozen=True)
class Pair:
    """A documented name and the sentence that answers what it does."""

    name: str
    answer: str


def question(pair: Pair, rng: random.Random) -> str:
    template = QUESTIONS[0] if rng.random() < CANONICAL_SHARE else rng.choice(QUESTIONS[1:])
    return template.format(name=pair.name)


def canonical_question(pair: Pair) -> str:
    return QUESTIONS[0].format(name=pair.name)


def usable_answer(docstring: object) -> str:
    """The first sentence if it can stand as an answer, else ""."""
    sentence = first_sentence(docstring) if isinstance(docstring, str) else ""
    num_words = len(sentence.split())
    plain = sentence.isascii() and "->" not in sentence and ">>>" not in sentence and "--" not in sentence
    return sentence if plain and 3 <= num_words <= MAX_ANSWER_WORDS and sentence[0].isupper() else ""


def pairs() -> list[Pair]:
    """All pairs, one per name, in module order; several names may share an answer."""
    found: dict[str, Pair] = {}
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for pair in _module_pairs(module, module_name):
            found.setdefault(pair.name, pair)
    return list(found.values())


def _module_pairs(module: ModuleType, module_name: str) -> Iterator[Pair]:
    prefix = "" if module_name == "builtins" else f"{module_name}."
    for name in sorted(getattr(module, "__all__", dir(module))):
        member = getattr(module, name)
        if name.startswith("_") or not (inspect.isroutine(member) or inspect.isclass(member)):
            continue
        if _is_own(member, module_name) and (answer := usable_answer(member.__doc__)):
            yield Pair(prefix + name, answer)
    for type_name in TYPES_WITH_METHODS.get(module_name, ()):
        yield from _method_pairs(getattr(module, type_name), prefix + type_name)


def _is_own(member: object, module_name: str) -> bool:
    """Leave out names of other modules and exceptions, whose docstrings say little."""
    if inspect.isclass(member) and issubclass(member, BaseException):
        return False
    home = getattr(member, "__module__", None) or module_name
    known = module_name in ("os.path", "os", "types", "signal", "socket", "typing")
    return known or home.split(".")[0].lstrip("_") == module_name.split(".")[0] or home.startswith("_")


def _method_pairs(kind: type, prefix: str) -> Iterator[Pair]:
    for name, member in sorted(vars(kind).items()):
        if not name.startswith("_") and inspect.isroutine(member) and (answer := usable_answer(member.__doc__)):
            yield Pair(f"{prefix}.{name}", answer)


def conversation(pair: Pair, others: list[Pair], rng: random.Random) -> list[Message]:
    """The pair as a chat: at times after a system message or after another question."""
    messages: list[Message] = []
    if rng.random() < 0.2:
        messages.append({"role": "system", "content": rng.choice(SYSTEMS)})
    if rng.random() < 0.08:
        other = rng.choice(others)
        messages += exchange(question(other, rng), other.answer)
    return messages + exchange(question(pair, rng), pair.answer)


def fixed_conversation(rng: random.Random) -> list[Message]:
    return exchange(*rng.choice(FIXED_PAIRS))


def exchange(user: str, assistant: str) -> list[Message]:
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
