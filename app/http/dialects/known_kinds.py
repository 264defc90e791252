"""Parts of a body that say what they are by their ``type``: those that are not understood are refused by that name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from app.http.schemas.strict import UNKNOWN_KIND

MAX_SHOWN = 64


def only(*known: str, implied: str | None = None) -> BeforeValidator:
    """Let pass what is of a ``known`` type, or whose type no schema would take either; ``implied`` stands for none."""

    def check(part: Any) -> Any:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind not in known:
            raise PydanticCustomError(
                UNKNOWN_KIND, "the type {kind} is not understood here, only {known}", _told(kind, known)
            )
        return {**part, "type": implied} if isinstance(part, dict) and kind is None and implied else part

    return BeforeValidator(check)


def _told(kind: str, known: Collection[str]) -> dict[str, str]:
    return {"kind": repr(kind[:MAX_SHOWN]), "known": ", ".join(sorted(known))}
