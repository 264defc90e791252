"""What each route takes and gives: the table behind the OpenAPI description. Pure data."""

from __future__ import annotations

from typing import Any

from app.http.answers import native_types as native
from app.http.answers import openai_types as openai_answers
from app.http.answers import system_types as system
from app.http.answers.stream import TEXT_TYPES, EventWriter
from app.http.description.dialect_operations import DIALECT_OPERATIONS
from app.http.description.infer_operations import INFER_OPERATIONS
from app.http.description.operation_form import READS_BODY, WORKS, Form, Operation, posting
from app.http.description.task_operations import TASK_OPERATIONS
from app.http.dialects.tgi.tgi_body import TgiRootBody
from app.http.dialects.tgi.tgi_types import TgiText
from app.http.lora.adapter_bodies import LoadAdapterBody, UnloadAdapterBody
from app.http.reading.body import FORM_TYPES, JSON_TYPE
from app.http.schemas.chat_body import ChatCompletionsBody
from app.http.schemas.completions_body import CompletionsBody
from app.http.schemas.encoder_bodies import EmbeddingsBody, FillMaskBody
from app.http.schemas.fim_body import FimBody
from app.http.schemas.hub_bodies import HubFillMaskBody
from app.http.schemas.infill_body import InfillBody
from app.http.schemas.markdown_body import MarkdownBody
from app.http.schemas.native_bodies import ChatBody, CompleteBody
from app.http.schemas.token_bodies import DetokenizeBody, TokenizeBody
from app.serve.incoming.error_forms import Error, TgiError

EVENTS = EventWriter.mimetype
NATIVE_STREAMS = (EVENTS, *TEXT_TYPES)
STREAM_TEXT = "With `stream`: events `data: {json}`, at the end `data: [DONE]`; a failure is an event with `error`."
CONVERSATION = {"messages": [{"role": "user", "content": "What does os.getcwd do?"}], "max_tokens": 32}
ROOT_TEXT = (
    "The requests of older services: `data` is continued, `prompt` is answered, masks in a plain text are filled; "
    "`inputs` is text-generation-inference's."
)

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("/complete", "post"): posting(
        "Continue a text",
        "native",
        CompleteBody,
        native.Completion,
        {"prompt": "def add(a, b):", "max_new_tokens": 16},
        streams=NATIVE_STREAMS,
        text=STREAM_TEXT,
    ),
    ("/chat", "post"): posting(
        "Answer a conversation",
        "native",
        ChatBody,
        native.ChatAnswer,
        {"prompt": "What does os.getcwd do?", "history": []},
        streams=NATIVE_STREAMS,
        text=STREAM_TEXT,
    ),
    ("/infill", "post"): posting(
        "Fill holes in a text",
        "native",
        InfillBody,
        native.InfillAnswer | native.SelectedFields,
        {"prefix": "def add(a, b):\n    ", "suffix": "\n\nprint(add(1, 2))\n"},
        streams=NATIVE_STREAMS,
        text="A single hole can be streamed.",
    ),
    ("/fill-mask", "post"): posting(
        "Propose tokens for masks",
        "native",
        FillMaskBody | HubFillMaskBody,
        native.Proposals,
        {"text": "The capital of France is [MASK].", "top_k": 3},
        text="As transformers' pipeline answers: a list; for several masks, or several texts, a list of those.",
    ),
    ("/tokenize", "post"): posting("Text to tokens", "native", TokenizeBody, native.Tokens, {"text": "def add(a, b):"}),
    ("/detokenize", "post"): posting("Tokens to text", "native", DetokenizeBody, native.Text, {"tokens": [10, 11, 12]}),
    ("/v1/completions", "post"): posting(
        "Continue texts, fill a hole before a suffix, score prompts",
        "OpenAI",
        CompletionsBody,
        openai_answers.TextCompletion,
        {"prompt": "def add(a, b):", "max_tokens": 16, "temperature": 0},
        streams=(EVENTS,),
    ),
    ("/v1/chat/completions", "post"): posting(
        "Answer a conversation",
        "OpenAI",
        ChatCompletionsBody,
        openai_answers.ChatCompletion,
        CONVERSATION,
        streams=(EVENTS,),
    ),
    ("/v1/fim/completions", "post"): posting(
        "Fill a hole",
        "OpenAI",
        FimBody,
        openai_answers.FimCompletion,
        {"prompt": "def add(a, b):", "suffix": "\n\nprint(add(1, 2))\n", "max_tokens": 16},
        streams=(EVENTS,),
        text="Mistral's API.",
    ),
    ("/v1/embeddings", "post"): posting(
        "Texts to vectors", "OpenAI", EmbeddingsBody, openai_answers.EmbeddingList, {"input": "some text"}
    ),
    ("/v1/models", "get"): Operation("The served models", "OpenAI", {JSON_TYPE: openai_answers.ModelList}),
    ("/v1/models/{name}", "get"): Operation(
        "One model by name", "OpenAI", {JSON_TYPE: openai_answers.ModelEntry}, statuses=(404,)
    ),
    ("/v1/capabilities", "get"): Operation(
        "What the models can do, within which bounds", "server", {JSON_TYPE: system.CapabilitiesList}, statuses=(503,)
    ),
    ("/markdown", "post"): Operation(
        "Markdown to HTML",
        "pages",
        {JSON_TYPE: system.Markup},
        {JSON_TYPE: MarkdownBody},
        READS_BODY,
        {JSON_TYPE: {"text": "some *text*"}},
        "For the playground: what a model wrote, without markup of its own and without images.",
    ),
    ("/v1/load_lora_adapter", "post"): Operation(
        "Serve one more LoRA adapter, on all workers",
        "server",
        {JSON_TYPE: system.AdapterChange},
        {JSON_TYPE: LoadAdapterBody},
        (*READS_BODY, 403, 404),
        {JSON_TYPE: {"lora_name": "team-a"}},
        "A folder of this name in `FORKLIFT_ADAPTERS`; only on a server with `FORKLIFT_API_KEYS`.",
    ),
    ("/v1/unload_lora_adapter", "post"): Operation(
        "Serve a LoRA adapter no more",
        "server",
        {JSON_TYPE: system.AdapterChange},
        {JSON_TYPE: UnloadAdapterBody},
        (*READS_BODY, 403, 404),
        {JSON_TYPE: {"lora_name": "team-a"}},
        "Requests that run go on.",
    ),
    ("/livez", "get"): Operation("200 while the process answers", "server", {JSON_TYPE: system.Alive}),
    ("/readyz", "get"): Operation("200 when this server can take work", "server", {JSON_TYPE: system.Readiness}),
    ("/health", "get"): Operation("As /readyz, with a word for the state", "server", {JSON_TYPE: system.Health}),
    ("/props", "get"): Operation(
        "A model as llama.cpp's plugins ask for it", "server", {JSON_TYPE: system.Props}, statuses=(404, 503)
    ),
    ("/metrics", "get"): Operation("Prometheus' text format", "server", {"text/plain": None}),
    **DIALECT_OPERATIONS,
    **INFER_OPERATIONS,
    **TASK_OPERATIONS,
    ("/", "post"): Operation(
        "Continue, chat or fill masks",
        "older forms",
        {JSON_TYPE: str | native.PromptAnswer | native.Proposals | list[TgiText], **dict.fromkeys(NATIVE_STREAMS)},
        {JSON_TYPE: CompleteBody | ChatBody | TgiRootBody, "text/plain": None},
        WORKS,
        {JSON_TYPE: {"data": "#print hello world function"}, "text/plain": "The capital of France is [MASK]."},
        ROOT_TEXT,
        Error | native.PromptAnswer | TgiError,
    ),
    ("/", "put"): Operation(
        "Continue a form field",
        "older forms",
        {JSON_TYPE: str},
        dict.fromkeys(FORM_TYPES, Form("data")),
        WORKS,
        {FORM_TYPES[0]: {"data": "#print hello world function"}},
    ),
    ("/", "get"): Operation(
        "Playground for browsers, a pointer for others", "pages", {JSON_TYPE: system.Pointer, "text/html": None}
    ),
    ("/openapi.json", "get"): Operation("This description", "pages", {JSON_TYPE: dict[str, Any]}),
    ("/docs", "get"): Operation("This description for people", "pages", {"text/html": None}),
}
