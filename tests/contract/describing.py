"""A world for whatever reads the API's description: every route can be driven, with room for longer prompts."""

from __future__ import annotations

from collections.abc import Sequence

from tests.contract.doubles import InfillPrompt, ScriptedModel


class RoomyModel(ScriptedModel):
    """A scripted model with a larger context, which fills holes beside other files."""

    def __init__(self, context_tokens: int = 4096):
        super().__init__(context_tokens=context_tokens)

    def encode_infill(
        self, parts: Sequence[str], filled: Sequence[str], files: Sequence[tuple[str, str]] = (), start: str = ""
    ) -> InfillPrompt:
        return super().encode_infill(parts, filled)

    def token_strings(self, ids: list[int]) -> list[str]:
        return [self.detokenize([token]) for token in ids]

    def detokenize(self, ids: list[int]) -> str:
        return "".join(map(chr, ids)).encode("utf-8", "replace").decode()
