"""What the native routes answer: answers are built as these types, and the OpenAPI description is made from them.

Types only; the answers are made where the work is done.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from app.core.work.job_events import FinishReason

Recorded = str | int


class PromptAnswer(TypedDict):
    """What `/` answers to a prompt, failures included."""

    response: str
    status: int
    time: Annotated[str, Field(description="Local time, YYYY-MM-DD HH:MM:SS.")]


class CachedTokens(TypedDict):
    """Prompt tokens whose KV entries were still there."""

    cached_tokens: int


class ReasoningTokens(TypedDict):
    """Tokens of the completion that were reasoning."""

    reasoning_tokens: int


class Usage(TypedDict):
    """Token counts; of reasoning where the model's can be told apart."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens
    completion_tokens_details: NotRequired[ReasoningTokens]


class Timings(TypedDict):
    """Milliseconds since the request was taken in."""

    queue_ms: float
    ttft_ms: Annotated[float, Field(description="Until the first token.")]
    total_ms: float


class Token(TypedDict):
    """A token and its log-probability; `bytes:\\xe2` stands for one that is no whole character."""

    id: int
    token: str
    logprob: float
    bytes: list[int]


class ScoredToken(Token):
    """A token of the completion, with the best ones in its place."""

    top_logprobs: list[Token]


class Recording(TypedDict):
    """The caller's own id of the request, where it gave one."""

    recordid: NotRequired[Recorded]


class Details(Recording):
    """What every native answer tells beside its text."""

    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    model: str
    request_id: str


class Scores(TypedDict):
    """Log-probabilities, where they were asked for."""

    logprobs: NotRequired[list[ScoredToken]]


class CompletionChoice(TypedDict):
    """One of several completions."""

    index: int
    completion: str
    finish_reason: FinishReason
    logprobs: NotRequired[list[ScoredToken]]


class Completions(Scores):
    """Of several completions each one, and the first one's log-probabilities."""

    choices: NotRequired[list[CompletionChoice]]


class Completion(Details, Completions):
    """A continued text; of several, the first one."""

    completion: str


class ChatChoice(TypedDict):
    """One of several answers."""

    index: int
    response: str
    finish_reason: FinishReason
    logprobs: NotRequired[list[ScoredToken]]


class ChatAnswers(Scores):
    """Of several answers each one, and the first one's log-probabilities."""

    choices: NotRequired[list[ChatChoice]]


class ChatAnswer(Details, PromptAnswer, ChatAnswers):
    """An answered conversation."""

    history: Annotated[list[list[str]], Field(description="Rounds of question and answer, this one included.")]


class LlamaCppSettings(TypedDict):
    """How it was generated, as far as llama.cpp's plugins read it."""

    n_ctx: int


class InfillTimings(Timings):
    """With llama.cpp's counts and speeds for those who speak as its plugins do."""

    prompt_n: NotRequired[int]
    prompt_ms: NotRequired[float]
    prompt_per_token_ms: NotRequired[float]
    prompt_per_second: NotRequired[float]
    predicted_n: NotRequired[int]
    predicted_ms: NotRequired[float]
    predicted_per_token_ms: NotRequired[float]
    predicted_per_second: NotRequired[float]


class LlamaCppDetails(TypedDict):
    """What llama.cpp tells beside the text."""

    stop: NotRequired[Literal[True]]
    stop_type: NotRequired[Literal["eos", "word", "limit"]]
    truncated: NotRequired[Literal[False]]
    tokens_cached: NotRequired[int]
    tokens_evaluated: NotRequired[int]
    tokens_predicted: NotRequired[int]
    id_slot: NotRequired[int]
    generation_settings: NotRequired[LlamaCppSettings]


class InfillDetails(LlamaCppDetails, Recording):
    """What an infilling tells beside its text."""

    finish_reasons: list[FinishReason]
    finish_reason: FinishReason
    usage: Usage
    timings: InfillTimings
    model: str
    request_id: str


class LlamaCppText(TypedDict):
    """The text under llama.cpp's name."""

    content: NotRequired[str]


class InfillAnswer(InfillDetails, LlamaCppText):
    """Filled holes; ``content``, ``stop`` and what follows it as llama.cpp, ``response_fields`` choose among all."""

    infills: list[str]
    text: Annotated[str, Field(description="All parts with their holes filled.")]


SelectedFields = dict[str, Any]


class Proposal(TypedDict):
    """A token for a mask."""

    score: float
    token: int
    token_str: str
    sequence: str


Proposals = list[Proposal] | list[list[Proposal]] | list[list[list[Proposal]]]


class Tokens(TypedDict):
    """A text cut into tokens."""

    tokens: list[int]
    token_strings: list[str]
    count: int
    max_context: int


class Text(TypedDict):
    """The text of tokens."""

    text: str
