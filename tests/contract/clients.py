"""What clients that we did not write send, as their sources and documentation show it; data only.

The bodies are theirs field by field, with texts of our own. Modes of tools that choose for the model are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CHAT, COMPLETIONS, FIM, INFILL = "/v1/chat/completions", "/v1/completions", "/v1/fim/completions", "/infill"
HI = {"role": "user", "content": "hi"}
SYSTEM = {"role": "system", "content": "be brief"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": " there"}]}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
FUNCTION = {"name": "weather", "description": "tells it", "parameters": SCHEMA}
TOOLS = [{"type": "function", "function": FUNCTION}]
CALL = {"id": "call_abc123", "type": "function", "function": {"name": "weather", "arguments": '{"a": 1}'}}
ROUND = [HI, {"role": "assistant", "content": None, "tool_calls": [CALL]}]
RESULT = {"role": "tool", "tool_call_id": "call_abc123", "content": "rain"}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
STOPS = ["<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<file_sep>", "<|endoftext|>", "</fim_middle>", "</code>"]
MANY_STOPS = [*STOPS, "/src/", "#- coding: utf-8", "```", "\n\n\n", *(f"\n{word} " for word in "abcdefghijkl")]
EXTRA = [{"text": "import os\n", "time": [3, 141592], "filename": "a.py"}]


@dataclass(frozen=True)
class Client:
    """One request of a client, and where its shape is published."""

    name: str
    source: str
    path: str
    body: dict[str, Any]


def chat(name: str, source: str, **fields: Any) -> Client:
    return Client(name, source, CHAT, {"model": "scripted", "messages": [SYSTEM, HI], **fields})


def completions(name: str, source: str, **fields: Any) -> Client:
    return Client(name, source, COMPLETIONS, {"model": "scripted", "prompt": "def f(", **fields})


LANGCHAIN = "https://github.com/langchain-ai/langchain/tree/master/libs/partners/openai"
CLIENTS = [
    chat("LangChain", LANGCHAIN, temperature=0.7, n=1, stream=False, max_completion_tokens=4096),
    chat("LangChain stream", LANGCHAIN, temperature=None, **STREAM),
    chat(
        "LangChain structured",
        LANGCHAIN,
        parallel_tool_calls=True,
        response_format={"type": "json_schema", "json_schema": {"name": "A", "schema": SCHEMA, "strict": True}},
    ),
    chat("LangChain agent", LANGCHAIN, tools=TOOLS, messages=[*ROUND, {**RESULT, "name": "weather"}]),
    chat("LlamaIndex", "https://github.com/run-llama/llama_index", temperature=0.1, max_tokens=3000, stream=False),
    chat("LiteLLM", "https://github.com/BerriAI/litellm", user="u", **STREAM),
    chat("Instructor", "https://github.com/567-labs/instructor", response_format={"type": "json_object"}),
    chat("Vercel AI SDK", "https://github.com/vercel/ai", messages=[SYSTEM, PARTS], temperature=0, **STREAM),
    chat(
        "OpenAI Agents SDK",
        "https://github.com/openai/openai-agents-python",
        tools=TOOLS,
        messages=[*ROUND, RESULT],
        metadata={"trace": "1"},
        store=False,
        verbosity="low",
        reasoning_effort="low",
        prompt_cache_retention=None,
        **STREAM,
    ),
    chat(
        "Open WebUI",
        "https://github.com/open-webui/open-webui",
        max_tokens=2048,
        top_p=0.9,
        seed=42,
        stop=["###"],
        frequency_penalty=0.1,
        presence_penalty=0,
        logit_bias={},
        reasoning_effort="medium",
        **STREAM,
    ),
    chat(
        "LibreChat",
        "https://github.com/danny-avila/LibreChat",
        user="65f",
        stream=True,
        temperature=1,
        top_p=1,
        presence_penalty=0,
        frequency_penalty=0,
    ),
    chat("Aider", "https://github.com/Aider-AI/aider", temperature=0, stream=True),
    chat("Cline", "https://github.com/cline/cline", messages=[SYSTEM, PARTS], temperature=0, max_tokens=8192, **STREAM),
    chat("Roo Code", "https://github.com/RooCodeInc/Roo-Code", messages=[SYSTEM, PARTS], max_tokens=None, **STREAM),
    chat(
        "Zed",
        "https://github.com/zed-industries/zed",
        messages=[PARTS],
        max_completion_tokens=32768,
        stop=[],
        temperature=1.0,
        prompt_cache_key="4d1e",
        stream=True,
    ),
    chat("Cursor", "https://docs.cursor.com", tools=TOOLS, tool_choice="auto", user="u", temperature=1, **STREAM),
    chat(
        "Codex CLI",
        "https://github.com/openai/codex",
        tools=[{"type": "function", "function": {**FUNCTION, "strict": False}}],
        stream=True,
    ),
    chat("Jan", "https://github.com/menloresearch/jan", max_tokens=2048, stop=[], frequency_penalty=0, stream=True),
    chat("big-AGI", "https://github.com/enricoros/big-AGI", temperature=0.5, max_tokens=4096, n=1, **STREAM),
    chat(
        "n8n",
        "https://github.com/n8n-io/n8n",
        temperature=0.7,
        top_p=1,
        frequency_penalty=0,
        presence_penalty=0,
        n=1,
        stream=False,
        response_format={"type": "text"},
    ),
    chat("Dify", "https://github.com/langgenius/dify", user="abc", stop=["Human:"], max_tokens=512, stream=True),
    chat(
        "Semantic Kernel",
        "https://github.com/microsoft/semantic-kernel",
        max_tokens=100,
        temperature=1,
        top_p=1,
        presence_penalty=0,
        frequency_penalty=0,
        stop=None,
        logit_bias={},
        n=1,
    ),
    chat("Spring AI", "https://github.com/spring-projects/spring-ai", stream=False, temperature=0.7),
    chat("langchain4j", "https://github.com/langchain4j/langchain4j", store=False, service_tier="flex", **STREAM),
    chat("AutoGen", "https://github.com/microsoft/autogen", messages=[{**HI, "name": "user_proxy"}], stream=False),
    chat("CrewAI", "https://github.com/crewAIInc/crewAI", stop=["\nObservation:"], temperature=0),
    chat("Haystack", "https://github.com/deepset-ai/haystack", stream=False, n=1, modalities=["text"]),
    chat("LM Studio's example", "https://lmstudio.ai/docs/app/api/endpoints/openai", max_tokens=-1, stream=True),
    chat("an agent without tools", "https://platform.openai.com/docs/api-reference/chat", tools=[], tool_choice="auto"),
    completions(
        "LM Studio's completions", "https://lmstudio.ai/docs/app/api/endpoints/openai", max_tokens=-1, stop="\n"
    ),
    chat("llm", "https://github.com/simonw/llm", **STREAM),
    chat(
        "vLLM's benchmark",
        "https://github.com/vllm-project/vllm",
        max_completion_tokens=16,
        ignore_eos=True,
        repetition_penalty=1.0,
        top_k=-1,
        stream=True,
        stream_options={"include_usage": True, "continuous_usage_stats": True},
    ),
    chat(
        "llama.vim's instruction",
        "https://github.com/ggml-org/llama.vim/blob/master/autoload/llama.vim",
        id_slot=1,
        min_p=0.1,
        temperature=0.1,
        samplers=["min_p", "temperature"],
        cache_prompt=True,
        stream=True,
    ),
    chat(
        "llama.vscode's edit",
        "https://github.com/ggml-org/llama.vscode/blob/master/src/llama-server.ts",
        cache_prompt=True,
        temperature=0.8,
        top_p=0.95,
        stream=False,
    ),
    chat("Continue", "https://github.com/continuedev/continue", max_tokens=4096, stop=["\n", "<|"], **STREAM),
    completions(
        "Continue's autocomplete",
        "https://github.com/continuedev/continue/tree/main/core/autocomplete",
        max_tokens=2048,
        temperature=0.01,
        stop=MANY_STOPS,
        stream=True,
    ),
    completions("twinny", "https://github.com/twinnydotdev/twinny", temperature=0.2, n_predict=512, stream=True),
    completions(
        "Tabby",
        "https://github.com/TabbyML/tabby/tree/main/crates/http-api-bindings",
        suffix="\n",
        max_tokens=64,
        temperature=0.1,
        presence_penalty=0.0,
        seed=77,
        stream=True,
    ),
    completions(
        "minuet",
        "https://github.com/milanglacier/minuet-ai.nvim",
        suffix="",
        max_tokens=256,
        top_p=0.9,
        stop=["\n\n"],
        stream=True,
    ),
    completions(
        "lm-evaluation-harness",
        "https://github.com/EleutherAI/lm-evaluation-harness",
        prompt=[[97, 98, 99]],
        max_tokens=1,
        logprobs=1,
        echo=True,
        temperature=0,
        seed=1234,
    ),
    completions("llama.vscode's OpenAI mode", "https://github.com/ggml-org/llama.vscode", max_tokens=128, top_p=0.99),
    Client(
        "Continue with Mistral",
        "https://github.com/continuedev/continue/blob/main/packages/openai-adapters/src/apis/Mistral.ts",
        FIM,
        {
            "model": "scripted",
            "prompt": "def f(",
            "suffix": "\n",
            "max_tokens": 64,
            "temperature": 0.01,
            "stop": ["\n\n"],
            "stream": True,
        },
    ),
    Client(
        "Mistral's documentation",
        "https://docs.mistral.ai/api/endpoint/fim",
        FIM,
        {
            "model": "scripted",
            "prompt": "def",
            "suffix": "return a+b",
            "top_p": 1,
            "random_seed": 3,
            "min_tokens": None,
            "metadata": None,
        },
    ),
    Client(
        "llama.vim",
        "https://github.com/ggml-org/llama.vim/blob/master/autoload/llama.vim",
        INFILL,
        {
            "id_slot": 0,
            "input_prefix": "def f(",
            "input_suffix": "\n",
            "input_extra": EXTRA,
            "prompt": "x",
            "n_predict": 128,
            "stop": [],
            "n_indent": 0,
            "top_k": 40,
            "top_p": 0.9,
            "samplers": ["top_k", "top_p", "infill"],
            "stream": False,
            "cache_prompt": True,
            "t_max_prompt_ms": 500,
            "t_max_predict_ms": 1000,
            "response_fields": ["content", "timings/prompt_n", "truncated", "tokens_cached"],
        },
    ),
    Client(
        "llama.vscode",
        "https://github.com/ggml-org/llama.vscode/blob/master/src/llama-server.ts",
        INFILL,
        {
            "id_slot": 0,
            "input_prefix": "def f(",
            "input_suffix": "\n",
            "input_extra": [{**EXTRA[0], "time": 1764370000000}],
            "prompt": "",
            "n_predict": 128,
            "n_cmpl": 3,
            "top_k": 40,
            "top_p": 0.99,
            "stream": False,
            "samplers": ["top_k", "top_p", "infill"],
            "cache_prompt": True,
            "t_max_prompt_ms": 500,
            "t_max_predict_ms": 2500,
        },
    ),
]
