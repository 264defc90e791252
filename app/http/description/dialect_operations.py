"""What the routes of other APIs for conversations take and give: rows of the table of operations. Pure data."""

from __future__ import annotations

from app.http.answers.stream import EventWriter
from app.http.description.operation_form import WORKS, Operation, posting
from app.http.dialects.messages import messages_types as messages
from app.http.dialects.messages.messages_body import CountTokensBody, MessagesBody
from app.http.dialects.responses.response_types import AnsweredResponse
from app.http.dialects.responses.responses_body import ResponsesBody
from app.http.dialects.tgi.tgi_body import TgiBody
from app.http.dialects.tgi.tgi_types import TgiText
from app.http.reading.body import JSON_TYPE
from app.serve.incoming.error_forms import MessagesError, TgiError

CONTINUED = {"inputs": "def add(a, b):", "parameters": {"max_new_tokens": 16, "details": True}}
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
        failure=MessagesError,
    ),
    ("/v1/messages/count_tokens", "post"): posting(
        "Count a conversation's tokens",
        "Anthropic",
        CountTokensBody,
        messages.InputTokens,
        HI,
        failure=MessagesError,
    ),
    ("/generate", "post"): posting(
        "Continue a text",
        "text-generation-inference",
        TgiBody,
        TgiText,
        CONTINUED,
        failure=TgiError,
    ),
    ("/generate_stream", "post"): Operation(
        "Continue a text, a token an event",
        "text-generation-inference",
        {EventWriter.mimetype: None},
        {JSON_TYPE: TgiBody},
        WORKS,
        {JSON_TYPE: CONTINUED},
        "Its events: `data: {json}`, the last one with the whole text; no `[DONE]`.",
        TgiError,
    ),
}
