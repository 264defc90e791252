"""Parts of a body that say what they are by their ``type``: those that are not understood are refused by that name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic import BeforeValidator

from app.core.errors import UnsupportedParameterError

MAX_SHOWN = 64


def only(known: Collection[str], param: str, *, implied: str | None = None) -> BeforeValidator:
    """Let pass what is of a ``known`` type, or whose type no schema would take either; ``implied`` stands for none."""

    def check(part: Any) -> Any:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind not in known:
            listed = ", ".join(sorted(known))
            text = f"{param}: the type {kind[:MAX_SHOWN]!r} is not understood here, only {listed}"
            raise UnsupportedParameterError(text, param=param)
        return {**part, "type": implied} if isinstance(part, dict) and kind is None and implied else part

    return BeforeValidator(check)
