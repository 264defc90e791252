"""Requests to encoders and tokenizers: from a body to the answer. HTTP threads.

Each opens its request, waits for it, and gives its places back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.core.errors import InvalidParameterError
from app.core.parsing.token_ids import require_token_ids
from app.core.tasks.encoder_jobs import Cut, EncodeOptions, EncoderInput
from app.http.answers import native_types as native
from app.http.application.request_log import record
from app.http.application.service import Service
from app.http.requests.encoding import EncodeWith, Encoding
from app.http.requests.limits import naming
from app.http.requests.opening import admit, open_request
from app.http.schemas.encoder_bodies import MAX_PROPOSALS, EmbeddingsBody, FillMaskBody
from app.http.schemas.token_bodies import DetokenizeBody, TokenizeBody

if TYPE_CHECKING:
    from app.models.encoders.encoder_model import EncoderModel
    from app.models.served_model import ServedModel


@contextmanager
def filling_masks(service: Service, body: FillMaskBody) -> Iterator[tuple[list[native.Proposals], Encoding]]:
    """Of each text what transformers' pipeline answers. Raises a ``RequestError``."""
    line = record()
    line.recordid, line.prompt = body.recordid, body.text
    handle = service.choose(body.model, "fill-mask")
    work = EncodeWith("fill-mask", "text", lambda model: encode_texts(body, model), EncodeOptions(body.top_k))
    with open_request(service.context, handle, work) as encoding:
        yield [encoding.encoder.filled(given.ids, encoded) for given, encoded in encoding.read_encoded()], encoding


def by_mask(proposals: Any) -> list[Any]:
    """One list for each mask: of a text with a single one transformers' pipeline answers a bare list."""
    found: list[Any] = proposals
    return found if found and isinstance(found[0], list) else [found]


def encode_texts(body: FillMaskBody, model: EncoderModel) -> Iterator[EncoderInput]:
    """Each text. Raises ``InvalidParameterError`` without masks, or with too many proposals."""
    num_proposals = 0
    for text in body.texts:
        ids = model.encode_masked(text)
        num_proposals += model.num_masks(ids) * body.top_k
        yield EncoderInput(ids)
    if num_proposals > MAX_PROPOSALS:
        message = f"top_k: {num_proposals} proposals for all masks are above the bound of {MAX_PROPOSALS}"
        raise InvalidParameterError(message, param="top_k")


@contextmanager
def embedding(service: Service, body: EmbeddingsBody) -> Iterator[tuple[list[tuple[float, ...]], Encoding]]:
    """A vector for each input. Raises a ``RequestError``."""
    record().prompt = body.input
    handle = service.choose(body.model, "embeddings")
    given = VectorInputs(body.inputs, "input", body.prompt_name, body.dimensions)
    work = EncodeWith("embeddings", "input", given.encode, EncodeOptions(dimensions=body.dimensions))
    with open_request(service.context, handle, work) as encoding:
        yield [encoded.vector for _, encoded in encoding.read_encoded()], encoding


@dataclass(frozen=True, slots=True)
class VectorInputs:
    """Texts or token ids, ``param`` in the body, to be turned into vectors."""

    inputs: Sequence[str | list[int]]
    param: str
    prompt_name: str | None
    dimensions: int | None
    cut: Cut | None = None

    def encode(self, model: EncoderModel) -> Iterator[EncoderInput]:
        """Each input. Raises ``InvalidParameterError``."""
        if self.dimensions is not None and self.dimensions > model.num_dimensions:
            text = f"dimensions: the vectors of the model {model.name} have {model.num_dimensions}"
            raise InvalidParameterError(text, param="dimensions")
        ids = [one for one in self.inputs if not isinstance(one, str)]
        if ids and self.prompt_name is not None:
            raise InvalidParameterError("prompt_name: token ids have no prompt", param="prompt_name")
        for tokens in ids:
            require_token_ids(tokens, model.vocab_size, self.param)
        for one in self.inputs:
            if isinstance(one, str):
                yield model.read_prompted(one, self.prompt_name, cut=self.cut)
            else:
                yield EncoderInput(one)


@contextmanager
def any_model(service: Service, name: str | None) -> Iterator[ServedModel]:
    """The model for as long as the block holds a place: tokenizing is the first thing that overload must stop.

    Raises a ``RequestError``."""
    with admit(service.context, service.choose(name, None)) as admitted:
        yield admitted.model
        admitted.release()


def tokenize(service: Service, body: TokenizeBody) -> native.Tokens:
    """Text to ids. Raises a ``RequestError``."""
    with any_model(service, body.model) as model:
        with naming("text"):
            ids = model.encode(body.given, add_special_tokens=body.add_special_tokens)
        return {
            "tokens": ids,
            "token_strings": model.token_strings(ids),
            "count": len(ids),
            "max_context": model.context_tokens,
        }


def detokenize(service: Service, body: DetokenizeBody) -> native.Text:
    """Ids to text. Raises a ``RequestError``."""
    with any_model(service, body.model) as model:
        return {"text": model.detokenize(body.tokens)}
