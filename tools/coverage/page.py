"""The page that tells how each type of model is served."""

from __future__ import annotations

from collections import Counter
from typing import Any

import transformers

from tools.coverage.reasons import REFUSED, SERIAL
from tools.pages import REPOSITORY

PAGE = REPOSITORY / "docs" / "coverage.md"
ROWS_TOGETHER = ("mixed", "batched")
HEAD = """# Coverage

Every model type that the installed transformers ({version}) knows as a causal language model, built tiny with
random weights, loaded as a server loads it and compared with `generate` in float32, token for token: eight prompts of 1
to 110 tokens that join and leave at random steps, then two that begin as earlier ones did. `make coverage` writes this
page. A random tiny model says what the code of a family does, not what its checkpoints are worth.

*Engine*: `mixed` and `batched` decode sequences together, `serial` one after the other through `generate`.
*Continuous batching*: what transformers' own `generate_batch` makes of the same prompts with the same model;
answers that it does not give differ, too.
"""


def written(results: list[dict[str, Any]], num_untried: int = 0) -> str:
    """The whole page."""
    told = HEAD.format(version=transformers.__version__) + "\n" + counts(results)
    if num_untried:
        told += f"- {num_untried} further types were not tried yet.\n"
    return told + "\n" + table(results)


def counts(results: list[dict[str, Any]]) -> str:
    """How many of those that could be built answered how."""
    built = [one for one in results if one["stage"] != "build"]
    equal = [one for one in built if is_equal(one)]
    engines = Counter(one.get("engine", "refused") for one in built)
    together = [one for one in equal if one["engine"] in ROWS_TOGETHER]
    ours_alone = [one for one in together if one.get("continuous") != "equal"]
    lines = [
        f"- {len(results)} types; {len(built)} could be built tiny.",
        f"- {share(equal, built)} answer as `generate` does; {share(together, built)} do so with sequences together.",
        "- Engines: " + ", ".join(f"{name} {number}" for name, number in engines.most_common()) + ".",
        f"- `generate_batch` is equal for {share([one for one in built if one.get('continuous') == 'equal'], built)}; "
        f"{len(ours_alone)} types decode together here and not there.",
    ]
    return "\n".join(lines) + "\n"


def is_equal(found: dict[str, Any]) -> bool:
    """Whether every answer was that of ``generate``."""
    return bool(found["stage"] == "done" and found["wrong"] == 0)


def share(some: list[Any], of: list[Any]) -> str:
    """A number and what part of all it is."""
    return f"{len(some)} ({100 * len(some) / max(len(of), 1):.0f}%)"


def table(results: list[dict[str, Any]]) -> str:
    """A line for each type."""
    rows = ["| type | engine | as `generate` | prefix reused | continuous batching | |", "|---|---|---|---|---|---|"]
    return "\n".join([*rows, *map(line, results)]) + "\n"


def line(found: dict[str, Any]) -> str:
    """One row of the table."""
    name = found["type"]
    why = {**SERIAL, **REFUSED}.get(name, "") if found.get("engine") not in ROWS_TOGETHER else ""
    why = why or found.get("why", "")
    if found["stage"] == "build":
        return f"| `{name}` | not built | | | | {plain(why)} |"
    equal = {True: "equal", False: f"{found.get('wrong', '?')} of {found.get('of', '?')} differ"}[is_equal(found)]
    if found["stage"] != "done":
        equal = "no"
    reused = "yes" if found.get("cached") else "no"
    engine, continuous = found.get("engine", "refused"), plain(found.get("continuous", ""))
    return f"| `{name}` | {engine} | {equal} | {reused} | {continuous} | {plain(why)} |"


def plain(text: str) -> str:
    """Text that breaks no table."""
    return text.replace("|", "\\|").replace("<", "&lt;")[:160]
