"""Messages to bodies and answers to messages; and that the protocol says what the schemas know."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("grpc", reason="the extra grpc is not installed")

from app.client.connection.protocol import forklift_pb2 as wire
from app.core.errors import BadRequestError, InvalidParameterError, UnsupportedParameterError
from app.http.schemas.encoder_bodies import EmbeddingsBody, FillMaskBody
from app.http.schemas.generation_options import GenerationOptions
from app.http.schemas.infill_body import InfillBody
from app.http.schemas.native_bodies import ChatBody, CompleteBody
from app.http.schemas.token_bodies import DetokenizeBody, TokenizeBody
from app.rpc.methods.conversion import body_of, parse, reply_of
from app.rpc.methods.inference_protocol import open_inference_pb2

BODIES = {
    wire.CompleteRequest: CompleteBody,
    wire.ChatRequest: ChatBody,
    wire.InfillRequest: InfillBody,
    wire.FillMaskRequest: FillMaskBody,
    wire.EmbedRequest: EmbeddingsBody,
    wire.TokenizeRequest: TokenizeBody,
    wire.DetokenizeRequest: DetokenizeBody,
}
# Parameters that only `options_json` can say: objects, and what a message has elsewhere.
AS_JSON = {"response_format", "structured_outputs", "stream", "model", "recordid"}


@pytest.mark.parametrize("message", BODIES, ids=lambda message: message.DESCRIPTOR.name)
def test_every_field_of_a_request_is_one_of_the_body(message):
    names = {field.name for field in message.DESCRIPTOR.fields} - {"options", "options_json"}
    assert names <= set(BODIES[message].model_fields)


def test_every_sampling_parameter_has_a_field():
    """A new parameter needs a line in forklift.proto."""
    assert {field.name for field in wire.Options.DESCRIPTOR.fields} == set(GenerationOptions.model_fields) - AS_JSON


@pytest.mark.parametrize("stubs", [wire, open_inference_pb2], ids=["forklift", "open_inference"])
def test_the_stubs_are_those_of_the_protocol(tmp_path, stubs):
    """`make proto` writes them."""
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    folder, name = Path(stubs.__file__).parent, Path(stubs.__file__).stem.removesuffix("_pb2")
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", f"--python_out={tmp_path}"]
    subprocess.run([*command, f"--pyi_out={tmp_path}", f"{name}.proto"], check=True, timeout=60)
    for made in (f"{name}_pb2.py", f"{name}_pb2.pyi"):
        assert (folder / made).read_text() == (tmp_path / made).read_text(), "run make proto"


def test_what_is_set_is_in_the_body_and_nothing_else():
    message = wire.CompleteRequest(prompt="", options=wire.Options(temperature=0, stop=["a"], logit_bias={"5": 1.5}))
    assert body_of(message) == {"prompt": "", "temperature": 0.0, "stop": ["a"], "logit_bias": {"5": 1.5}}


def test_rounds_and_messages_are_those_of_the_json_api():
    message = wire.ChatRequest(prompt="c", history=[{"question": "a", "answer": ""}])
    assert body_of(message) == {"prompt": "c", "history": [["a", ""]]}
    message = wire.ChatRequest(messages=[{"role": "user", "content": "a"}])
    assert body_of(message) == {"messages": [{"role": "user", "content": "a"}]}


def test_what_has_no_field_comes_as_json():
    message = wire.CompleteRequest(prompt="a", options_json='{"response_format": {"type": "json_object"}}')
    assert body_of(message) == {"prompt": "a", "response_format": {"type": "json_object"}}


@pytest.mark.parametrize(
    "message",
    [
        wire.CompleteRequest(prompt="a", options_json='{"prompt": "b"}'),
        wire.CompleteRequest(prompt="a", options=wire.Options(seed=1), options_json='{"seed": 1}'),
        wire.CompleteRequest(prompt="a", options=wire.Options(temperature=float("nan"))),
        wire.CompleteRequest(prompt="a", options=wire.Options(logit_bias={"1": float("inf")})),
    ],
)
def test_what_the_json_api_could_not_be_sent_is_refused(message):
    with pytest.raises(InvalidParameterError):
        body_of(message)


@pytest.mark.parametrize("text", ["[]", "{", "{}{}", "NaN", '{"a": 1, "a": 2}'])
def test_json_that_is_no_object_is_refused(text):
    with pytest.raises(BadRequestError):
        body_of(wire.CompleteRequest(options_json=text))


def test_a_field_of_a_later_protocol_is_refused_and_not_ignored():
    later = b"\x98\x06\x01"  # field 99, the number 1
    message = wire.CompleteRequest.FromString(wire.CompleteRequest(prompt="a").SerializeToString() + later)
    with pytest.raises(UnsupportedParameterError, match="field 99 of CompleteRequest"):
        body_of(message)
    options = wire.CompleteRequest.FromString(b"\x2a\x03" + later)
    with pytest.raises(UnsupportedParameterError, match="field 99 of Options"):
        body_of(options)


def test_with_warnings_alone_it_is_named():
    message = wire.CompleteRequest.FromString(b"\x98\x06\x01")
    ignored: list[str] = []
    assert body_of(message, ignored) == {} and ignored == ["field 99 of CompleteRequest"]


@pytest.mark.parametrize("data", [b"\xff", b"\x12\x05ab", b"\x12\x01\xff"])
def test_bytes_that_are_no_message_are_a_fault_of_the_caller(data):
    with pytest.raises(BadRequestError, match=r"forklift\.v1\.CompleteRequest"):
        parse(wire.CompleteRequest, data)


def test_an_answer_keeps_what_the_message_has():
    answer = {
        "completion": "a",
        "recordid": 7,
        "usage": {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 0}},
        "timings": {"queue_ms": 0.5, "prompt_n": 3},
        "content": "a",
        "choices": [{"index": 1, "completion": "b", "finish_reason": "stop"}],
    }
    found = reply_of(wire.CompleteReply, answer)
    assert (found.completion, found.recordid, found.usage.prompt_tokens, found.timings.queue_ms) == ("a", "7", 1, 0.5)
    assert found.choices[0].completion == "b"
    assert reply_of(wire.ChatReply, {"history": [["q", "a"]]}).history[0].answer == "a"
