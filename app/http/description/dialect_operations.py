"""What the routes of other APIs for conversations take and give: rows of the table of operations. Pure data."""

from __future__ import annotations

from app.http.answers.stream import EventWriter
from app.http.description.operation_form import Operation, posting
from app.http.dialects.messages import messages_types as messages
from app.http.dialects.messages.messages_body import CountTokensBody, MessagesBody
from app.http.dialects.responses.response_types import AnsweredResponse
from app.http.dialects.responses.responses_body import ResponsesBody

HI = {"messages": [{"role": "user", "content": "What does os.getcwd do?"}]}

DIALECT_OPERATIONS: dict[tuple[str, str], Operation] = {
    ("/v1/responses", "post"): posting(
        "Answer a conversation",
        "OpenAI",
        ResponsesBody,
        AnsweredResponse,
        {"input": "What does os.getcwd do?", "max_output_tokens": 32},
        streams=(EventWriter.mimetype,),
        text="OpenAI's Responses API, its items and events; nothing is stored.",
    ),
    ("/v1/messages", "post"): posting(
        "Answer a conversation",
        "Anthropic",
        MessagesBody,
        messages.AnsweredMessage,
        {**HI, "max_tokens": 32},
        streams=(EventWriter.mimetype,),
        text="Anthropic's API, its events and errors.",
        failure=messages.MessagesError,
    ),
    ("/v1/messages/count_tokens", "post"): posting(
        "Count a conversation's tokens",
        "Anthropic",
        CountTokensBody,
        messages.InputTokens,
        HI,
        failure=messages.MessagesError,
    ),
}
