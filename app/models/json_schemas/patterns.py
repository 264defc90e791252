"""Regular expressions of callers, looked at without running them: what they may cost, which names they allow.

Pure functions over the text; whether an expression is one at all is for the compiler to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import re2

from app.core.system.native import guarded
from app.models.json_schemas.nodes import MAX_PATTERN_CHARS, refuse, refuse_cost, refuse_unsupported

# Nested counts multiply: ``(a{1000}){1000}`` is an automaton of a million states.
MAX_REPEATS = 20_000
MAX_NAMES = 64
_TOKEN = re.compile(r"\\(?:x\{[^}]*\}|p\{[^}]*\}|.)|\[\^?\]?(?:\\.|\[:\w+:\]|[^\]\\])*\]|\{\d+(?:,\d*)?\}|.", re.DOTALL)
_UNSUPPORTED = re.compile(r"(?P<look_around>\(\?<?[=!])|(?P<back_reference>\\[1-9])")
_COUNT = re.compile(r"\{(\d+)(?:,(\d*))?\}")
_ASSERTIONS = frozenset(("$", r"\z", r"\Z", r"\b", r"\B", r"\<", r"\>"))
_ASCII = {r"\d": "0-9", r"\w": "A-Za-z0-9_"}
_ESCAPE = re.compile(r"\\.", re.DOTALL)
_RE2 = re2.Options()
_RE2.max_mem = 1 << 20
_RE2.log_errors = False


def tokens(pattern: str) -> Iterator[str]:
    """Escapes, classes, counts and single characters, in order."""
    return (match.group() for match in _TOKEN.finditer(pattern))


def with_ascii_classes(pattern: str) -> str:
    """``pattern`` with the digits and letters that JSON schema's \\d and \\w mean (ECMA-262): those of ASCII."""
    return "".join(_with_ascii(token) for token in tokens(pattern))


def _with_ascii(token: str) -> str:
    if token in _ASCII:
        return f"[{_ASCII[token]}]"
    return _ESCAPE.sub(lambda found: _ASCII.get(found[0], found[0]), token) if token.startswith("[") else token


def check_cost(pattern: str, pointer: str) -> None:
    """Raise where counts multiply to more than ``MAX_REPEATS``, or for what no automaton can follow."""
    if len(pattern) > MAX_PATTERN_CHARS:
        refuse_cost(pointer, f"the pattern has more than {MAX_PATTERN_CHARS} characters")
    if num_repeats(pattern) > MAX_REPEATS:
        refuse_cost(pointer, f"the pattern's repetitions come to more than {MAX_REPEATS} copies")

    if (form := _UNSUPPORTED.search("".join(token for token in tokens(pattern) if _is_structure(token)))) is not None:
        refuse_unsupported(pointer, f"{form.lastgroup} in patterns is not supported".replace("_", "-"))


def _is_structure(token: str) -> bool:
    """Whether the token is no class and no character that is escaped."""
    return token[0] not in "[\\" or (token[0] == "\\" and token[1] in "123456789")


def num_repeats(pattern: str) -> int:
    """About how many copies of single characters the pattern's counts make, nested ones multiplied."""
    sums, last = [0], 1
    for token in tokens(pattern):
        if token == "(":
            sums.append(0)
        elif token == ")" and len(sums) > 1:
            last = max(sums.pop(), 1)
            sums[-1] += last
        elif count := _COUNT.fullmatch(token):
            times = max(int(bound[:9]) for bound in count.groups("0") if bound) if count.group(2) else int(count[1][:9])
            sums[-1] += last * max(times - 1, 0)
            last *= max(times, 1)
        elif token not in "*+?|^$":
            last = 1
            sums[-1] += 1
    return sum(sums)


def matches(pattern: str, text: str, pointer: str) -> bool:
    """Whether ``pattern`` is found in ``text``. Raises ``InvalidParameterError`` where RE2 does not know it."""
    try:
        with guarded():
            return re2.search(pattern, text, options=_RE2) is not None
    except re2.error:
        refuse(pointer, "the pattern is no regular expression that is supported")


def is_endless(pattern: str) -> bool:
    """Whether every start of a matching text can be continued in infinitely many ways to a matching text."""
    if "(?" in pattern.replace("(?:", ""):
        return False
    found = list(tokens(pattern))
    return not _ASSERTIONS & set(found) or all(map(_ends_openly, branches(found)))


def branches(found: list[str]) -> list[list[str]]:
    """The alternatives at the outermost level."""
    parts: list[list[str]] = [[]]
    depth = 0
    for token in found:
        depth += {"(": 1, ")": -1}.get(token, 0)
        if token == "|" and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def is_assertion(token: str) -> bool:
    """Whether it looks at a place and matches no character."""
    return token in _ASSERTIONS or token == "^"


def _ends_openly(branch: list[str]) -> bool:
    """``...x+$``, where x is one character or class; or nothing that looks at the end."""
    assertions = [token for token in branch if token in _ASSERTIONS]
    if not assertions:
        return True
    if assertions != ["$"] or len(branch) < 3 or branch[-1] != "$":
        return False
    is_open = branch[-2] in ("+", "*") or re.fullmatch(r"\{\d+,\}", branch[-2]) is not None
    return is_open and branch[-3] not in (")", "*", "+", "?", "^", "|", "(") and not branch[-3].startswith("{")


def names_of(pattern: str) -> list[str] | None:
    """The names that ``^a$`` or ``^(a|b|c)$`` allows; None where that is not the pattern's form."""
    form = re.fullmatch(r"\^(?:\((?:\?:)?)?([\w|:@ /-]*)\)?\$", pattern)
    if form is None or ("|" in form[1] and "(" not in pattern) or pattern.count("(") != pattern.count(")"):
        return None
    names = list(dict.fromkeys(form[1].split("|")))
    return names if len(names) <= MAX_NAMES else None
