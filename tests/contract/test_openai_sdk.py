"""The real ``openai`` package against a running server with a tiny model."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack

import openai
import pytest
import requests

from tests.contract.running import KEY, MODEL

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say something."}]


@pytest.fixture(scope="module")
def client(running):
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=KEY, max_retries=0, timeout=60) as client:
        yield client


def complete(client, **fields):
    return client.completions.create(**{"model": MODEL, "prompt": "def f(", "seed": 1, **fields})


def chat(client, **fields):
    return client.chat.completions.create(
        **{"model": MODEL, "messages": MESSAGES, "seed": 1, "max_tokens": 12, **fields}
    )


def test_models_are_listed_and_found(client):
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).object == "model"


def test_a_completion_has_every_field(client):
    answer = complete(client)
    (choice,) = answer.choices
    assert answer.object == "text_completion" and answer.id.startswith("cmpl-") and answer.model == MODEL
    assert choice.finish_reason in ("stop", "length") and choice.logprobs is None
    assert answer.usage.completion_tokens <= 16
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.parametrize("seed", range(12))
def test_the_stream_of_a_completion_is_the_same_text(client, seed):
    fields = {"seed": seed, "max_tokens": 24, "stop": ["e", "😀"]}
    chunks = list(complete(client, stream=True, stream_options={"include_usage": True}, **fields))
    whole = complete(client, **fields)
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == whole.choices[0].text
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_choices_of_several_prompts_stand_in_order(client):
    texts = [choice.text for choice in complete(client, prompt=["ab", "cd"], n=2, echo=True).choices]
    assert [text[:2] for text in texts] == ["ab", "ab", "cd", "cd"]
    alone = complete(client, prompt="cd", seed=1 + 3, echo=True).choices[0].text
    assert texts[3] == alone, "the choice of index 3 uses seed + 3"


def test_streamed_choices_are_those_of_the_whole_answer(client):
    texts = {0: "", 1: "", 2: ""}
    for chunk in complete(client, n=3, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert list(texts.values()) == [choice.text for choice in complete(client, n=3).choices]


def test_token_ids_are_a_prompt(client):
    assert complete(client, prompt=[70, 71]).usage.prompt_tokens == 2
    assert len(complete(client, prompt=[[70, 71], [72]], max_tokens=1).choices) == 2


def test_best_of_returns_the_likeliest(client):
    def mean(choice):
        return sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs)

    best = complete(client, best_of=6, n=2, logprobs=0)
    every = sorted((mean(choice) for choice in complete(client, n=6, logprobs=0).choices), reverse=True)
    assert [mean(choice) for choice in best.choices] == pytest.approx(every[:2], abs=1e-4)
    assert best.usage.completion_tokens > sum(len(choice.logprobs.tokens) for choice in best.choices)


def test_legacy_logprobs_are_four_lists_in_step(client):
    choice = complete(client, logprobs=3, max_tokens=8, extra_body={"ignore_eos": True}).choices[0]
    scores = choice.logprobs
    assert len(scores.tokens) == len(scores.token_logprobs) == len(scores.top_logprobs) == len(scores.text_offset) == 8
    for token, logprob, top in zip(scores.tokens, scores.token_logprobs, scores.top_logprobs, strict=True):
        assert top[token] == logprob <= max(top.values())
    assert scores.text_offset[0] == 0 and scores.text_offset == sorted(scores.text_offset)


def test_streamed_logprobs_are_those_of_the_whole_answer(client):
    fields = {"logprobs": 1, "max_tokens": 10, "stop": ["e"]}
    streamed = [choice for chunk in complete(client, stream=True, **fields) for choice in chunk.choices]
    tokens = [token for choice in streamed if choice.logprobs for token in choice.logprobs.tokens]
    whole = complete(client, **fields).choices[0].logprobs
    assert tokens == (whole.tokens if whole else [])


def test_a_stop_string_ends_the_text_and_its_tokens_are_not_listed(client):
    text = complete(client, max_tokens=24, extra_body={"ignore_eos": True}).choices[0].text
    stop = next(text[at] for at in range(3, len(text)) if text[at].isascii() and text.index(text[at]) == at)
    cut = complete(client, max_tokens=24, stop=stop, logprobs=0, extra_body={"ignore_eos": True}).choices[0]
    assert cut.text == text[: text.index(stop)] and cut.finish_reason == "stop"
    assert max(cut.logprobs.text_offset) < len(cut.text)


@pytest.mark.parametrize("max_tokens", [0, 2])
def test_echoed_logprobs_are_those_of_a_plain_forward_pass(client, reference, max_tokens):
    ids = [70, 300, 120, 80, 99, 301, 75]
    choice = complete(client, prompt=ids, echo=True, logprobs=5, max_tokens=max_tokens).choices[0]
    expected = reference(ids)
    assert choice.logprobs.token_logprobs[0] is None and choice.logprobs.top_logprobs[0] is None
    scores = [row[token] for row, token in zip(expected, ids[1:], strict=False)]
    assert choice.logprobs.token_logprobs[1 : len(ids)] == pytest.approx(scores, abs=1e-4)
    for top, row in zip(choice.logprobs.top_logprobs[1 : len(ids)], expected, strict=False):
        assert sorted(top.values())[-5:] == pytest.approx(sorted(row)[-5:], abs=1e-4)
    assert len(choice.logprobs.tokens) >= len(ids) + (max_tokens > 0)


def test_a_scored_prompt_is_the_whole_answer(client):
    answer = complete(client, prompt="some text", echo=True, logprobs=0, max_tokens=0)
    assert answer.choices[0].text == "some text" and answer.choices[0].finish_reason == "length"
    assert "".join(answer.choices[0].logprobs.tokens) == "some text"
    assert answer.usage.completion_tokens == 0


def test_a_suffix_asks_for_the_hole_before_it(client):
    answer = complete(client, prompt="def f(x):\n    return ", suffix="\n\nprint(f(1))\n", max_tokens=4)
    assert answer.usage.prompt_tokens > 10


def test_chat_answers_with_a_message(client):
    answer = chat(client)
    (choice,) = answer.choices
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    assert choice.message.role == "assistant" and isinstance(choice.message.content, str)
    assert answer.usage.completion_tokens <= 12


@pytest.mark.parametrize("seed", range(6))
def test_the_stream_of_a_chat_is_the_same_text(client, seed):
    chunks = list(chat(client, seed=seed, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    whole = chat(client, seed=seed).choices[0]
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.message.content
    assert chunks[-2].choices[0].finish_reason == whole.finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens > 0


def test_chat_logprobs_hold_bytes_that_join_to_the_content(client):
    choice = chat(client, n=2, logprobs=True, top_logprobs=3).choices[1]
    raw = b"".join(bytes(entry.bytes) for entry in choice.logprobs.content)
    assert raw.decode("utf-8", "replace") == choice.message.content
    assert all(len(entry.top_logprobs) == 3 for entry in choice.logprobs.content)


def test_the_same_seed_is_the_same_text(client):
    texts = {chat(client, seed=9, temperature=1.5).choices[0].message.content for _ in range(3)}
    assert len(texts) == 1
    assert len({chat(client, seed=seed, temperature=1.5).choices[0].message.content for seed in range(4)}) > 1


def test_a_schema_is_followed(client):
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    schema["additionalProperties"] = False
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    answer = chat(client, response_format=wanted, max_tokens=60)
    assert set(json.loads(answer.choices[0].message.content)) == {"ok"}
    assert complete(client, extra_body={"regex": "[0-9]{3}"}).choices[0].text.isdigit()


def test_tools_are_refused_where_the_template_knows_none(client):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, tools=tools)
    assert caught.value.param == "tools"


def respond(client, **fields):
    return client.responses.create(**{"model": MODEL, "input": MESSAGES, "max_output_tokens": 12, **fields})


def test_a_response_is_the_answer_of_a_chat_whole_and_streamed(client):
    text = chat(client).choices[0].message.content
    response = respond(client, extra_body={"seed": 1})
    assert response.output_text == text and response.status in ("completed", "incomplete")
    events = list(respond(client, stream=True, extra_body={"seed": 1}))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == text
    assert events[-1].response.usage.output_tokens == response.usage.output_tokens


def test_what_a_response_cannot_have_is_refused_by_name(client):
    with pytest.raises(openai.BadRequestError) as caught:
        respond(client, previous_response_id="resp_1")
    assert (caught.value.param, caught.value.code) == ("previous_response_id", "unsupported_parameter")


def test_async_clients_work(running):
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key=KEY, max_retries=0) as client:
            answer = await client.chat.completions.create(model=MODEL, messages=MESSAGES, seed=1, max_tokens=12)
            stream = await client.chat.completions.create(
                model=MODEL, messages=MESSAGES, seed=1, max_tokens=12, stream=True
            )
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            return answer.choices[0].message.content, text

    whole, streamed = asyncio.run(ask())
    assert whole == streamed


def test_each_fault_is_its_own_error_class(client, running):
    with pytest.raises(openai.BadRequestError) as bad:
        complete(client, temperature=-1)
    assert (bad.value.param, bad.value.code, bad.value.type) == (
        "temperature",
        "invalid_parameter",
        "invalid_request_error",
    )
    with pytest.raises(openai.NotFoundError) as missing:
        complete(client, model="other")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        complete(client.with_options(api_key="wrong"))
    with pytest.raises(openai.BadRequestError) as unknown:
        complete(client, extra_body={"grammar": "x"})
    assert (unknown.value.param, unknown.value.code) == ("grammar", "unsupported_parameter")


def test_a_full_server_is_a_retryable_503(client, running):
    body = {"prompt": "a", "max_tokens": 500, "ignore_eos": True, "stream": True}
    url, headers = f"{running.url}/v1/completions", {"Authorization": f"Bearer {KEY}"}
    # One sequence and then fifteen: the second request gets a row of its own at once, and all places are taken.
    with ExitStack() as stack:
        for num_choices in (1, 15):
            body["n"] = num_choices
            response = requests.post(url, json=body, headers=headers, stream=True, timeout=60)
            stack.enter_context(response)
            assert response.status_code == 200
        with pytest.raises(openai.InternalServerError) as caught:
            complete(client)
        assert caught.value.status_code == 503 and caught.value.code == "overloaded"
        assert int(caught.value.response.headers["Retry-After"]) >= 1
    assert complete(client.with_options(max_retries=5)).choices
