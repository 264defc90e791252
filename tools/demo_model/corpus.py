"""Selects the standard-library files to train on and the held-out ones.

Knows file names and weights only: nothing about samples, tokens or models.
"""

import ast
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HELD_OUT_FOLDERS = frozenset({"test", "tests", "idle_test"})
SKIPPED_FOLDERS = frozenset(
    {"site-packages", "__pycache__", "pydoc_data", "encodings", "msilib", "lib-dynload", "data"}
)
SKIPPED_FILES = frozenset({"html/entities.py", "stringprep.py", "this.py", "antigravity.py", "tkinter/tix.py"})
CLEAN_PACKAGES = frozenset(
    [
        "asyncio",
        "bisect",
        "calendar",
        "collections",
        "concurrent",
        "configparser",
        "contextlib",
        "copy",
        "csv",
        "dataclasses",
        "datetime",
        "difflib",
        "enum",
        "fileinput",
        "fnmatch",
        "fractions",
        "functools",
        "getpass",
        "glob",
        "graphlib",
        "gzip",
        "hashlib",
        "heapq",
        "html",
        "http",
        "inspect",
        "ipaddress",
        "json",
        "keyword",
        "linecache",
        "logging",
        "numbers",
        "operator",
        "os",
        "pathlib",
        "pprint",
        "queue",
        "random",
        "reprlib",
        "sched",
        "secrets",
        "shelve",
        "shlex",
        "shutil",
        "statistics",
        "string",
        "subprocess",
        "tempfile",
        "textwrap",
        "threading",
        "timeit",
        "tomllib",
        "types",
        "typing",
        "unittest",
        "urllib",
        "uuid",
        "warnings",
        "weakref",
        "zipfile",
        "__hello__",
    ]
)
DUSTY_PACKAGES = frozenset(
    "_pydecimal _sitebuiltins ctypes curses distutils idlelib lib2to3 pickletools tkinter turtle turtledemo".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class SourceFile:
    """One Python file: its path below the library folder, its text and how often to sample it."""

    name: str
    text: str
    weight: float


def library_folder() -> Path:
    """The folder of the running interpreter's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def is_held_out(name: Path) -> bool:
    return bool(HELD_OUT_FOLDERS.intersection(name.parts[:-1]))


def is_skipped(name: Path) -> bool:
    return (
        bool(SKIPPED_FOLDERS.intersection(name.parts[:-1]))
        or any(part.startswith("config-") for part in name.parts)
        or name.as_posix() in SKIPPED_FILES
        or name.name.startswith(("_sysconfigdata", "bad"))
    )


def package_weight(name: Path) -> float:
    """How often to sample a file: idiomatic packages twice, old or table-like ones half as often."""
    package = name.parts[0].removesuffix(".py")
    if package in CLEAN_PACKAGES:
        return 2.0
    return 0.5 if package in DUSTY_PACKAGES else 1.0


def is_python(text: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return False
    return True


def source_files(*, held_out: bool) -> Iterator[SourceFile]:
    """Yield the parseable UTF-8 files of one side of the split, in name order."""
    folder = library_folder()
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder)
        if is_skipped(name) or is_held_out(name) != held_out:
            continue
        try:
            text = path.read_bytes().decode("utf-8").replace("\r\n", "\n")
        except UnicodeDecodeError:
            continue
        if text.strip() and is_python(text):
            yield SourceFile(name.as_posix(), text, package_weight(name))
