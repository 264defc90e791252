"""Answers as JSON, read into the client's own types."""

from __future__ import annotations

from typing import Any

from .client_answers import (
    Choice,
    Completion,
    Entity,
    FoundAnswer,
    LabelScore,
    Proposal,
    RankedDocument,
    Timings,
    Token,
    Usage,
)
from .fields import count_field, foreign, list_field, member, number, require, text_field


def completion_of(body: Any, key: str) -> Completion:
    timings = member(body, "timings")
    recordid = body.get("recordid")
    return Completion(
        text=text_field(body, key),
        finish_reason=text_field(body, "finish_reason"),
        usage=usage_of(body),
        timings=Timings(_ms(timings, "queue_ms"), _ms(timings, "ttft_ms"), _ms(timings, "total_ms")),
        model=text_field(body, "model"),
        request_id=text_field(body, "request_id"),
        recordid=recordid if isinstance(recordid, str | int) else None,
        logprobs=tokens_of(body),
        choices=tuple(
            Choice(text_field(one, key), text_field(one, "finish_reason"), tokens_of(one))
            for one in list_field(body, "choices")
        ),
        infills=tuple(require(one, str, "infills") for one in list_field(body, "infills")),
        history=tuple(_round(one) for one in list_field(body, "history")),
    )


def usage_of(body: Any) -> Usage:
    """The counts of an answer of any route that generates."""
    usage = member(body, "usage")
    cached = count_field(member(usage, "prompt_tokens_details"), "cached_tokens")
    prompt, completion, total = (
        count_field(usage, name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")
    )
    return Usage(prompt, completion, total, cached)


def _choice(found: Any, key: str) -> Choice:
    return Choice(text_field(found, key), text_field(found, "finish_reason"), tokens_of(found))


def _ms(timings: dict[str, Any], name: str) -> float:
    return number(timings.get(name))


def _round(found: Any) -> tuple[str, str]:
    if not isinstance(found, list) or len(found) != 2:
        foreign("history", found)
    return require(found[0], str, "history"), require(found[1], str, "history")


def tokens_of(body: Any, name: str = "logprobs") -> tuple[Token, ...]:
    return tuple(
        Token(
            count_field(one, "id"),
            text_field(one, "token"),
            number(one.get("logprob")),
            _bytes(list_field(one, "bytes")),
            tokens_of(one, "top_logprobs"),
        )
        for one in list_field(body, name)
    )


def _bytes(values: list[Any]) -> bytes:
    if not all(type(value) is int and 0 <= value < 256 for value in values):
        foreign("bytes", values)
    return bytes(values)


def by_mask(found: Any) -> list[Any]:
    """One list of proposals per mask."""
    if not isinstance(found, list):
        foreign("the answer", found)
    return found if found and isinstance(found[0], list) else [found]


def proposal_of(found: Any) -> Proposal:
    one = require(found, dict, "a proposal")
    score, token = number(one.get("score")), count_field(one, "token")
    return Proposal(score, token, text_field(one, "token_str"), text_field(one, "sequence"))


def label_score_of(found: Any) -> LabelScore:
    one = require(found, dict, "a label")
    return LabelScore(text_field(one, "label"), number(one.get("score")))


def ranked_document_of(found: Any) -> RankedDocument:
    one = require(found, dict, "a result")
    return RankedDocument(count_field(one, "index"), number(one.get("relevance_score")))


def entity_of(found: Any) -> Entity:
    one = require(found, dict, "an entity")
    kind = text_field(one, "entity_group" if "entity_group" in one else "entity")
    start, end = (None if one.get(name) is None else count_field(one, name) for name in ("start", "end"))
    return Entity(kind, number(one.get("score")), text_field(one, "word"), start, end)


def found_answer_of(found: Any) -> FoundAnswer:
    one = require(found, dict, "an answer")
    return FoundAnswer(
        text_field(one, "answer"), number(one.get("score")), count_field(one, "start"), count_field(one, "end")
    )
