"""Every request of the source documents, sent by the real ``curl`` to a real server with a model of that family.

S1 to S5 are the reports of the services that Forklift replaces: a code completion service (CodeGen,
InCoder), ChatGLM's chat, Qwen2's chat with a bounded queue, a BERT pipeline, a plain model service.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from app.models.tokens.chat_prompts import rounds_prompt
from tests.e2e.conftest import Forklift
from tests.service.conftest import server_starter, wait_for

pytestmark = [
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
    # Four servers start for it.
    pytest.mark.slow,
]

SYSTEM = "You are a helpful assistant."
SETTINGS: dict[str, dict[str, object]] = {
    "codegen": {},
    "incoder": {"dtype": "float16"},
    "qwen2": {"system_prompt": SYSTEM, "max_queue": 15, "log_prompts": True},
    "bert": {},
}
# S2's own: a large model that stays, and a small one that is loaded for a request and released after it.
MODELS = """
[chatglm]
path = "{chatglm}"

[bert]
path = "{bert}"
load = "on_demand"
idle_unload_s = 0
"""
JSON_TYPE = ("-H", "Content-Type: application/json")
PROMPT = "#print hello world function"
CODEGEN_PATTERNS = ["\n\n^#", "^'''", "\n\n\n"]
TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")

ServerOf = Callable[[str], Forklift]


@dataclass(frozen=True)
class Answer:
    """What curl got."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


@pytest.fixture(scope="module")
def server_of(tmp_path_factory, model_folder):
    """A server for each family; they start side by side."""
    starter = server_starter(tmp_path_factory.mktemp("sources"), Forklift)
    start = next(starter)
    servers = {
        family: start(num_ready=0, model=model_folder(family), model_name=family, **settings)
        for family, settings in SETTINGS.items()
    }
    models = tmp_path_factory.mktemp("models_file") / "models.toml"
    models.write_text(MODELS.format(chatglm=model_folder("chatglm"), bert=model_folder("bert")))
    servers["chatglm"] = start(num_ready=0, models=models)

    def ready(family: str) -> Forklift:
        servers[family].wait_until_listening()
        servers[family].wait_until_ready()
        return servers[family]

    yield ready
    next(starter, None)


def curl(server: Forklift, path: str, *options: str) -> Answer:
    command = ["curl", "-sSi", "--max-time", "60", *options, server.url + path]
    done = subprocess.run(command, capture_output=True, timeout=90, check=True)
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return Answer(int(status.split()[1]), headers, body)


def post(server: Forklift, path: str, *options: str, **fields: Any) -> Answer:
    return curl(server, path, "-X", "POST", *JSON_TYPE, "-d", json.dumps(fields, ensure_ascii=False), *options)


def greedy(folder: Any, prompt: str, num_tokens: int) -> str:
    """What transformers' own ``generate`` adds to the prompt."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([tokenizer(prompt).input_ids])
    output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=num_tokens)
    return tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True, clean_up_tokenization_spaces=False)


def exactly(text: str) -> str:
    """A constraint under which a model can write this and nothing else."""
    return re.escape(text).replace("\\\n", "\\n").replace("\\ ", " ").replace("\\#", "#")


def num_tokens(server: Forklift, text: str) -> int:
    return post(server, "/tokenize", text=text).json["count"]


# S1: code completion


def test_s1_the_final_form_answers_the_completed_code_as_a_json_string(server_of, model_folder):
    answer = post(server_of("codegen"), "/", data=PROMPT)
    assert answer.status == 200
    assert answer.json == PROMPT + greedy(model_folder("codegen"), PROMPT, 128)


def test_s1_the_first_form_puts_a_form_field_and_gets_the_same(server_of):
    server = server_of("codegen")
    put = curl(server, "/", "-X", "PUT", "-d", f"data={PROMPT}")
    assert (put.status, put.json) == (200, post(server, "/", data=PROMPT).json)
    encoded = curl(server, "/", "-X", "PUT", "--data-urlencode", "data=a = b + c & d")
    assert encoded.json.startswith("a = b + c & d")


@pytest.mark.parametrize("rest", ["\n\n# Next", "\n''' Next", "\n\n\nNext"])
def test_s1_the_answer_is_cut_before_the_first_pattern(server_of, rest):
    code = "    print('hello')\n\n    return # all"
    fields = {"data": "def hello():\n", "regex": exactly(code + rest), "truncate_before_pattern": CODEGEN_PATTERNS}
    answer = post(server_of("codegen"), "/", **fields)
    cut = "\n" if rest.startswith("\n'") else ""
    assert answer.json == "def hello():\n" + code + cut


def test_s1_incoder_extends_code_by_sampling_in_half_precision_and_keeps_its_spaces(server_of):
    server = server_of("incoder")
    (model,) = curl(server, "/v1/capabilities").json["data"]
    assert model["dtype"] == "float16"
    fields = {"data": "from . import", "temperature": 0.2, "top_p": 0.95, "max_new_tokens": 40, "seed": 1}
    answer = post(server, "/", **fields)
    assert answer.json.startswith("from . import") and len(answer.json) > len("from . import")
    spaced = post(server, "/", data="x", regex=exactly(" = [ 1 , 2 ] ; from . import y"))
    assert spaced.json == "x = [ 1 , 2 ] ; from . import y"


def test_s1_incoder_fills_the_blank_between_a_prefix_and_a_suffix(server_of):
    prefix, suffix = 'def count_words(filename):\n    """', '"""\n    return 1\n'
    answer = post(server_of("incoder"), "/infill", prefix=prefix, suffix=suffix, max_new_tokens=12)
    (filled,) = answer.json["infills"]
    assert answer.json["text"] == prefix + filled + suffix
    assert "<|" not in answer.json["text"]


def test_s1_incoder_fills_several_blanks(server_of):
    parts = ["def f(x):\n    y = ", "\n    z = ", "\n    return z\n"]
    body = post(server_of("incoder"), "/infill", parts=parts, max_new_tokens=8).json
    first, second = body["infills"]
    assert body["text"] == parts[0] + first + parts[1] + second + parts[2]


# S2: ChatGLM


def chat(server: Forklift, **fields: Any) -> dict[str, Any]:
    answer = post(server, "/chat", **fields)
    assert answer.status == 200, answer.body
    body: dict[str, Any] = answer.json
    assert body["status"] == 200 and TIME.fullmatch(body["time"])
    return body


def test_s2_a_chat_takes_the_history_and_answers_the_new_one(server_of):
    server = server_of("chatglm")
    options = {"max_length": 2048, "top_p": 0.7, "temperature": 0.95}
    whole = chat(server, prompt="你好", history=[], **options)
    assert whole["usage"]["total_tokens"] <= 1024, "lowered to the context"
    options["max_length"] = 64
    first = chat(server, prompt="你好", history=[], **options)
    assert first["history"] == [["你好", first["response"]]]
    second = chat(server, prompt="晚上睡不着", history=first["history"], **{**options, "max_length": 512})
    assert second["history"] == [*first["history"], ["晚上睡不着", second["response"]]]


def test_s2_max_length_counts_prompt_and_completion(server_of):
    body = chat(server_of("chatglm"), prompt="你好", history=[], max_length=48, ignore_eos=True)
    assert body["usage"]["total_tokens"] == 48 and body["finish_reason"] == "length"


def test_s2_a_model_without_a_template_gets_rounds(server_of):
    server = server_of("chatglm")
    rounds = "[Round 0]\n问：你好\n答：好\n[Round 1]\n问：晚上睡不着\n答："
    body = chat(server, prompt="晚上睡不着", history=[["你好", "好"]], max_new_tokens=8, temperature=0)
    assert body["usage"]["prompt_tokens"] == num_tokens(server, rounds)
    completed = post(server, "/complete", prompt=rounds, max_new_tokens=8, temperature=0).json
    assert body["response"] == completed["completion"]
    messages = [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "好"}]
    assert rounds_prompt([*messages, {"role": "user", "content": "晚上睡不着"}]) == rounds


def test_s2_a_bert_beside_the_chat_model_is_loaded_for_a_request_and_released_after_it(server_of):
    server = server_of("chatglm")

    def states() -> dict[str, str]:
        return {one["id"]: one["state"] for one in curl(server, "/v1/models").json["data"]}

    assert states() == {"chatglm": "loaded", "bert": "unloaded"}
    answer = post(server, "/fill-mask", text="test [MASK]")
    assert answer.status == 200 and len(answer.json) == 5
    chat(server, prompt="你好", history=[], max_new_tokens=4)
    wait_for(lambda: states() == {"chatglm": "loaded", "bert": "unloaded"}, "the small model's release")


# S3: Qwen2


def test_s3_a_prompt_is_answered_with_response_status_and_time(server_of, model_folder):
    server = server_of("qwen2")
    answer = post(server, "/", prompt="Who are you?")
    assert answer.status == 200
    assert list(answer.json) == ["response", "status", "time"]
    assert answer.json["status"] == 200 and TIME.fullmatch(answer.json["time"])
    time.strptime(answer.json["time"], "%Y-%m-%d %H:%M:%S")
    whole = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n"
    other = chat(server, messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Who are you?"}])
    assert answer.json["response"] == other["response"]
    tokens = AutoTokenizer.from_pretrained(model_folder("qwen2"))(whole).input_ids
    assert other["usage"]["prompt_tokens"] == len(tokens)


def test_s3_as_many_as_512_new_tokens_can_be_asked_for(server_of):
    server = server_of("qwen2")
    body = chat(server, prompt="Who are you?", max_new_tokens=512, ignore_eos=True)
    assert body["usage"]["completion_tokens"] == 512
    assert post(server, "/", prompt="Who are you?", max_new_tokens=5000).status == 200


def test_s3_a_full_queue_is_told_at_once_with_a_real_503(server_of):
    server = server_of("qwen2")
    fields = {"prompt": "Who are you?", "n": 16, "max_new_tokens": 512, "ignore_eos": True, "stream": True}
    command = ["curl", "-sSN", *JSON_TYPE, "-d", json.dumps(fields), f"{server.url}/chat"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as busy:
        assert busy.stdout is not None and busy.stdout.readline().startswith(b"data: ")
        answer = post(server, "/", prompt="And you?")
        assert busy.poll() is None, "the answer came while the other request ran"
        busy.kill()
    assert answer.status == 503 and int(answer.headers["retry-after"]) >= 1
    assert list(answer.json) == ["response", "status", "time"]
    assert answer.json["status"] == 503 and TIME.fullmatch(answer.json["time"])
    wait_for(lambda: server.rows()[0]["num_running"] == 0, "the cancelled request to end")


LINES = "First line.\n\n  second: 'quoted' \\ \"text\"\n\tdata: x\n"


def test_s3_server_sent_events_keep_line_breaks(server_of):
    server = server_of("qwen2")
    answer = post(server, "/", "-N", prompt="Say it.", stream=True, regex=exactly(LINES))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["transfer-encoding"] == "chunked"
    *events, done = answer.text.removesuffix("\n\n").split("\n\n")
    assert done == "data: [DONE]"
    assert all(event.startswith("data: {") and "\n" not in event for event in events)
    pieces = [json.loads(event.removeprefix("data: "))["response"] for event in events]
    assert len(pieces) > 1 and "".join(pieces) == LINES


def test_s3_plain_chunked_text_keeps_line_breaks(server_of):
    server = server_of("qwen2")
    answer = post(server, "/", "-N", "-H", "Accept: text/plain", prompt="Say it.", stream=True, regex=exactly(LINES))
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.text == LINES


def test_s3_an_answer_is_logged_with_time_prompt_and_response(server_of):
    server = server_of("qwen2")
    answer = post(server, "/", "-H", "X-Request-Id: s3-log", prompt="Log me.").json
    (line,) = wait_for(
        lambda: [line for line in server.log_lines("request") if line["request_id"] == "s3-log"], "the log line"
    )
    assert line["prompt"] == [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Log me."}]
    assert line["completion"] == answer["response"] and line["timestamp"]


# S4: a pipeline behind a web server


@pytest.mark.parametrize("kind", [("-H", "Content-Type: text/plain"), ()], ids=["text/plain", "curl's own type"])
def test_s4_plain_text_with_a_mask_gets_what_the_pipeline_answers(server_of, model_folder, kind):
    answer = curl(server_of("bert"), "/", "-X", "POST", *kind, "-d", "test [MASK]")
    expected = pipeline("fill-mask", model=str(model_folder("bert")))("test [MASK]")
    assert answer.status == 200 and len(answer.json) == len(expected) == 5
    for found, wanted in zip(answer.json, expected, strict=True):
        assert list(found) == ["score", "token", "token_str", "sequence"]
        assert abs(found["score"] - wanted["score"]) < 1e-5
        assert {**found, "score": 0} == {**wanted, "score": 0}


def test_s4_a_bad_query_is_told_without_internals(server_of):
    answer = curl(server_of("bert"), "/", "-X", "POST", "-H", "Content-Type: text/plain", "-d", "no mask")
    assert answer.status == 400 and "[MASK]" in answer.json["error"]["message"]
    assert "Traceback" not in answer.text and ".py" not in answer.text


# S5: what an online model service needs


@pytest.mark.parametrize("family", ["codegen", "chatglm"])
def test_s5_a_recordid_comes_back_and_stands_in_the_log(server_of, family):
    server, path = server_of(family), "/complete" if family == "codegen" else "/chat"
    answer = post(server, path, recordid="77492467", prompt="a", max_new_tokens=4)
    assert answer.json["recordid"] == "77492467"
    request_id = answer.headers["x-request-id"]
    (line,) = wait_for(
        lambda: [line for line in server.log_lines("request") if line["request_id"] == request_id], "the log line"
    )
    assert (line["recordid"], line["status"], line["route"]) == ("77492467", 200, path)


def test_s5_the_record_of_a_refused_request_is_logged_too(server_of):
    server = server_of("codegen")
    answer = post(server, "/", recordid="77492468", data="a", model="unknown")
    assert answer.status == 404
    found = wait_for(
        lambda: [line for line in server.log_lines("request") if line["recordid"] == "77492468"], "the log line"
    )
    assert found[0]["error"] == "model_not_found"


def test_s5_input_is_validated_by_field(server_of):
    answer = post(server_of("codegen"), "/", data="a", top_p=7)
    assert answer.status == 400 and answer.json["error"]["param"] == "top_p"
