"""Random tool schemas on random models through the real engine: every finished call conforms, a cut one says so.

The small version runs with the slow tests; a thousand requests and more with ``make chaos``, which prints what came.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.core.parsing.tool_calls.choosing import CALL_FORMS
from app.core.parsing.tool_calls.forms.object_forms.phi import FUNCTOOLS
from app.models.grammars.calls.notation_table import NOTATIONS
from app.models.tokens.model_forms import ModelForms
from tests.contract.real import RealWorld
from tests.tiny_models import SPECIAL, save_tiny_model, tiny_tokenizer
from tests.unit.models.grammars.test_call_grammars import FORMS, random_object
from tests.unit.models.json_schemas.sampled import judge

MAX_TOKENS = 400
# What a template shows of a notation that is one of several of its form.
SHOWN = {"mistral_v11": "[ARGS]", "deepseek_v3": "```json", "glm_4_7": "</arg_key><arg_value>"}
SHOWN |= {"function_gemma": "<start_function_call>", "dsml_v32": "function_calls>", "phi_functools": FUNCTOOLS}
SIGNS = sorted(frozenset[str]().union(*(form.signs for form in CALL_FORMS.values())) - {"[", "{", "<function="})


def special_folder(folder: Path) -> Path:
    """A tiny model whose tokenizer has the signs of every form as special tokens."""
    save_tiny_model("llama", folder)
    tiny_tokenizer(special=[*SPECIAL, *SIGNS]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["text", "special"])
def world(request, model_folder, tmp_path_factory):
    folder = model_folder("qwen2")
    if request.param == "special":
        folder = special_folder(tmp_path_factory.mktemp("special") / "model")
    world = RealWorld(folder, max_batch_size=16, max_queue=32)
    yield world
    world.stop()


def write_in(world: RealWorld, notation: str) -> None:
    """Let the model's calls be of this notation."""
    tokenizer = world.inference.model.tokenizer
    tokenizer.chat_template = f"{{{{ tools | tojson }}}}{{# {SHOWN.get(notation, '')} #}}"
    form = FORMS.get(notation, notation.split("_v")[0])
    world.inference.model.forms = ModelForms(tokenizer, calls=form)
    assert world.inference.model.forms.notation == notation


def body_of(seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    schemas = {"get_weather": random_object(rng), "search": random_object(rng, 1)}
    tools = [{"type": "function", "function": {"name": name, "parameters": one}} for name, one in schemas.items()]
    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": MAX_TOKENS, "temperature": 1.0, "seed": seed}
    match seed % 4:
        case 0:
            choice = {"tool_choice": "required"}
        case 1:
            choice = {"tool_choice": {"type": "function", "function": {"name": "search"}}}
        case 2:
            choice = {"tool_choice": "required", "parallel_tool_calls": False}
        case _:
            choice = {}
            for tool in tools:
                tool["function"]["strict"] = True
    return {**body, "tools": tools, **choice, "stream": seed % 8 >= 4}


def answer_of(client: Any, body: dict[str, Any]) -> tuple[list[dict[str, str]], str, str | None] | None:
    """Calls, content and finish reason; None where the notation cannot hold the schema."""
    response = client.post("/v1/chat/completions", json=body)
    if response.status_code == 400:
        error = response.get_json()["error"]
        assert error["code"] == "unsupported_parameter" and "#/properties/" in error["message"], error
        return None
    if not body["stream"]:
        [choice] = response.get_json()["choices"]
        message = choice["message"]
        calls = [call["function"] for call in message.get("tool_calls", [])]
        return calls, message["content"] or "", choice["finish_reason"]
    lines = response.get_data(as_text=True).split("\n\n")
    assert lines[-2] == "data: [DONE]", lines[-3:]
    choices = [json.loads(line[6:])["choices"][0] for line in lines if line.startswith("data: {")]
    calls = []
    for part in [part for one in choices for part in one["delta"].get("tool_calls", [])]:
        if "name" in part["function"]:
            calls.append({"name": part["function"]["name"], "arguments": ""})
        calls[part["index"]]["arguments"] += part["function"]["arguments"]
    return calls, "".join(one["delta"].get("content") or "" for one in choices), choices[-1]["finish_reason"]


def check(client: Any, seed: int) -> str:
    """Ask, judge the answer, and say what it was."""
    body = body_of(seed)
    answer = answer_of(client, body)
    if answer is None:
        return "refused"
    calls, content, reason = answer
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in body["tools"]}
    is_forced, is_cut = "tool_choice" in body, reason == "length"
    assert is_cut or reason == ("tool_calls" if calls else "stop"), (seed, reason)
    assert not is_forced or is_cut or (calls and not content), (seed, answer)
    for call in calls[: len(calls) - is_cut]:
        judge(call["arguments"], schemas[call["name"]])
    if seed % 4 in (1, 2):
        assert len(calls) <= 1 and all(seed % 4 == 2 or call["name"] == "search" for call in calls)
    return "cut" if is_cut else "calls" if calls else "text"


def check_many(world: RealWorld, seeds: range) -> Counter[str]:
    # Made once: Python 3.11 cannot parse in several threads at once, as werkzeug does for each route.
    application = world.client().application
    with ThreadPoolExecutor(16) as pool:
        return Counter(pool.map(lambda seed: check(application.test_client(), seed), seeds))


@pytest.mark.slow
@pytest.mark.parametrize("notation", ["hermes", "qwen_coder", "gemma", "harmony", "llama_python"])
def test_calls_of_random_schemas_on_a_random_model_conform_or_say_that_they_were_cut(world, notation):
    write_in(world, notation)
    found = check_many(world, range(8))
    assert found["calls"] + found["cut"] > 0 and sum(found.values()) == 8


@pytest.mark.chaos
@pytest.mark.parametrize("notation", NOTATIONS)
def test_calls_of_many_random_schemas_conform_or_say_that_they_were_cut(world, notation):
    """A thousand requests and more over all notations and both models."""
    write_in(world, notation)
    first = 100 * list(NOTATIONS).index(notation)
    found = check_many(world, range(first, first + 34))
    print(notation, dict(found))
    assert sum(found.values()) == 34 and found["calls"] > 34 // 4
