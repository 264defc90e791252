"""From an encoder's eager layers to compiled ones while a model serves. Inference thread only."""

from __future__ import annotations

from app.core.settings import Settings
from app.engine.checks.features import layers_departure
from app.models.encoders.encoder_code import find_layers, install
from app.models.encoders.encoder_model import EncoderModel


class EncoderChange:
    """As ``ChangeOver``, in one piece: what is compared takes two passes of few tokens."""

    def __init__(self, model: EncoderModel, settings: Settings):
        self._model, self._settings = model, settings
        self.failure: str | None = None
        self.reason: str | None = None

    def advance(self) -> bool:
        """Change, where the code gives what eager layers give. False: there is no more."""
        native = find_layers(self._model.checkpoint.model, self._settings)
        if isinstance(native, str):
            self.reason = native
        elif (failure := layers_departure(self._model, native)) is not None:
            self.failure = failure
        else:
            install(self._model.checkpoint.model, native)
        return False

    def abandon(self) -> None:
        """Nothing is left of it between two pieces."""
