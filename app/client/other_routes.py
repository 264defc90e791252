"""Routes that are spoken as they are: those in other APIs' forms, and what has no method of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .connection.exchange import AnswerSource
from .event_reading import plain_events_of
from .fields import count_field, items_of, list_field, number, require


class OtherRoutes(ABC):
    """What a client has beside a method for each task."""

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON of any route, as it comes. Without ``body`` it is a GET. Raises ``ClientError``."""
        return self._ask(path, None if body is None else dict(body))

    def events(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The events of any route that streams, as they come; leaving the loop closes the connection."""
        return plain_events_of(self._post(path, {"stream": True, **body}))

    def text(self, path: str) -> str:
        """What a route answers that is no JSON, such as ``/metrics``."""
        with self._post(path, None, is_whole=True) as exchange:
            return exchange.whole().data.decode("utf-8", "replace")

    def score(self, text_1: str | list[str], text_2: str | list[str], **options: Any) -> list[float]:
        """How well the texts of each pair fit each other; one ``text_1`` may stand before several."""
        found = self._ask("/score", {"text_1": text_1, "text_2": text_2, **options})
        return [number(require(one, dict, "data").get("score")) for one in list_field(found, "data")]

    def similarity(self, text: str, others: list[str], **options: Any) -> list[float]:
        """How alike a text is to each of the others, by their vectors."""
        body = {"inputs": {"source_sentence": text, "sentences": others}, **options}
        return [number(one) for one in items_of(self._ask("/similarity", body))]

    def count_tokens(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> int:
        """How many tokens the prompt of a conversation has, as Anthropic's API takes it."""
        return count_field(self._ask("/v1/messages/count_tokens", {"messages": messages, **options}), "input_tokens")

    @abstractmethod
    def _ask(self, path: str, body: dict[str, Any] | None = None) -> Any: ...

    @abstractmethod
    def _post(self, path: str, body: dict[str, Any] | None, is_whole: bool = False) -> AnswerSource: ...
