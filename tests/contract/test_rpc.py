"""gRPC calls on a scripted inference thread: the same answers, errors, places and log lines as over HTTP."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import ExitStack

import pytest

grpc = pytest.importorskip("grpc", reason="the extra grpc is not installed")

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from app.client.connection.protocol import forklift_pb2 as wire
from app.core.errors import OverloadedError, ShuttingDownError
from app.rpc.methods.method_table import METHODS
from tests.contract.describing import RoomyModel
from tests.contract.doubles import Gate
from tests.contract.rpc_bind import unused_address
from tests.contract.rpc_door import connected, open_door
from tests.waiting import wait_until

TEXT = "Hello,\nworld"
SERVICE = "forklift.v1.Forklift"


def method(channel, name, reply, *, is_streamed=False):
    make = channel.unary_stream if is_streamed else channel.unary_unary
    return make(
        f"/{SERVICE}/{name}",
        request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
        response_deserializer=reply.FromString,
    )


def complete(channel, message=None, **options):
    call = method(channel, "Complete", wire.CompleteReply)
    return call(wire.CompleteRequest(prompt="abc") if message is None else message, timeout=30, **options)


def refusal(channel, message=None, **options):
    """The failure of a call, and its trailers."""
    with pytest.raises(grpc.RpcError) as caught:
        complete(channel, message, **options)
    return caught.value, dict(caught.value.trailing_metadata())


@pytest.fixture
def world(make_world):
    return make_world(model=RoomyModel(), grpc_bind=unused_address())


@pytest.fixture
def channel(world):
    with connected(world.context) as channel:
        yield channel


def test_a_completion_is_that_of_http(channel, world):
    options = wire.Options(temperature=0.5, logprobs=1, n=2)
    found = complete(channel, wire.CompleteRequest(prompt="abc", echo=True, recordid="r7", options=options))
    assert (found.completion, found.finish_reason, found.model, found.recordid) == (
        "abc" + TEXT,
        "stop",
        "scripted",
        "r7",
    )
    assert [one.completion for one in found.choices] == ["abc" + TEXT] * 2
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (3, 6)
    assert found.logprobs[0].top_logprobs[0].token == "H"
    assert world.inference.jobs[0].params.temperature == 0.5


def test_a_stream_joins_to_the_whole_and_ends_with_what_there_is_to_tell(channel):
    call = method(channel, "CompleteStream", wire.CompletePiece, is_streamed=True)
    *pieces, last = call(wire.CompleteRequest(prompt="abc"), timeout=30)
    assert "".join(piece.completion for piece in pieces) == TEXT
    assert last.end.finish_reason == "stop" and last.end.usage.completion_tokens == 3


def test_chats_holes_and_tokens(channel):
    found = method(channel, "Chat", wire.ChatReply)(wire.ChatRequest(prompt="one"), timeout=30)
    assert (found.response, found.history[0].question, found.history[0].answer) == (TEXT, "one", TEXT)
    found = method(channel, "Infill", wire.InfillReply)(wire.InfillRequest(parts=["a", "b", "c"]), timeout=30)
    assert (found.text, list(found.infills)) == (f"a{TEXT}b{TEXT}c", [TEXT, TEXT])
    found = method(channel, "Tokenize", wire.TokenizeReply)(wire.TokenizeRequest(text="ab"), timeout=30)
    assert (list(found.tokens), found.count) == ([97, 98], 2)
    found = method(channel, "Detokenize", wire.DetokenizeReply)(wire.DetokenizeRequest(tokens=[97]), timeout=30)
    assert found.text == "a"
    [model] = method(channel, "Capabilities", wire.CapabilitiesReply)(wire.CapabilitiesRequest(), timeout=30).data
    assert (model.id, model.task, json.loads(model.json)["supports"]["infill"]) == ("scripted", "generate", True)


def test_ids_come_and_go_as_metadata(channel):
    call = method(channel, "Complete", wire.CompleteReply)
    found, call = call.with_call(
        wire.CompleteRequest(prompt="abc"), timeout=30, metadata=(("x-request-id", "mine"), ("recordid", "r9"))
    )
    assert (found.request_id, found.recordid) == ("mine", "r9")
    assert dict(call.initial_metadata()) == {"x-request-id": "mine", "recordid": "r9", "x-worker": "0"}


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        (wire.CompleteRequest(prompt="a", options=wire.Options(temperature=-1)), "invalid_parameter", "temperature"),
        (wire.CompleteRequest(prompt="a", options_json='{"foo": 1}'), "unsupported_parameter", "foo"),
        (wire.CompleteRequest(prompt="a", options_json='{"stream": true}'), "unsupported_parameter", "stream"),
        (wire.CompleteRequest(), "invalid_parameter", "prompt"),
        (b"\xff", "bad_request", None),
    ],
)
def test_a_fault_of_the_caller_names_the_field(channel, message, code, param):
    failure, trailers = refusal(channel, message)
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (trailers["forklift-code"], trailers.get("forklift-param")) == (code, param)


def test_other_errors_have_their_own_status(channel, world):
    failure, _ = refusal(channel, wire.CompleteRequest(prompt="a", model="another"))
    assert failure.code() is grpc.StatusCode.NOT_FOUND
    failure, _ = refusal(channel, wire.CompleteRequest(prompt="a" * 5000))
    assert failure.code() is grpc.StatusCode.OUT_OF_RANGE
    world.inference.refuse_with = OverloadedError("full", retry_after_s=3)
    failure, trailers = refusal(channel)
    assert failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and trailers["retry-after"] == "3"


def test_a_stream_that_fails_has_told_what_there_was(channel, world):
    world.inference.script = ["Hel", 0.1, ShuttingDownError("going")]
    stream = method(channel, "CompleteStream", wire.CompletePiece, is_streamed=True)(wire.CompleteRequest(prompt="a"))
    assert next(stream).completion == "Hel"
    with pytest.raises(grpc.RpcError) as caught:
        list(stream)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(caught.value.trailing_metadata())["forklift-code"] == "shutting_down"


@pytest.mark.parametrize("name", ["Complete", "CompleteStream"])
def test_cancelling_gives_the_place_back(channel, world, name):
    world.inference.script = ["a", Gate()]
    if name == "Complete":
        call = method(channel, name, wire.CompleteReply).future(wire.CompleteRequest(prompt="a"))
    else:
        call = method(channel, name, wire.CompletePiece, is_streamed=True)(wire.CompleteRequest(prompt="a"))
    wait_until(lambda: world.num_places() == 1)
    call.cancel()
    wait_until(lambda: world.num_places() == 0)


@pytest.mark.parametrize("told", [{"timeout": 0.3}, {"timeout": 30, "metadata": (("x-request-timeout-s", "0.3"),)}])
def test_a_deadline_is_the_requests_limit(channel, world, told, capsys):
    world.inference.script = ["a", Gate()]
    with pytest.raises(grpc.RpcError) as caught:
        method(channel, "Complete", wire.CompleteReply)(wire.CompleteRequest(prompt="a"), **told)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: world.num_places() == 0)
    if "metadata" in told:
        assert dict(caught.value.trailing_metadata())["forklift-code"] == "request_timeout"


def test_a_message_that_is_too_large_is_refused(make_world):
    world = make_world(grpc_bind=unused_address(), max_body_bytes=1000)
    with connected(world.context) as channel:
        failure, trailers = refusal(channel, wire.CompleteRequest(prompt="a" * 1001))
        assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT and trailers["forklift-code"] == "body_too_large"
        failure, _ = refusal(channel, wire.CompleteRequest(prompt="a" * 1_000_000))
        assert failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert complete(channel).completion == TEXT


def test_a_compressed_message_is_not_unfolded(channel):
    failure, _ = refusal(channel, wire.CompleteRequest(prompt="a" * 1000), compression=grpc.Compression.Gzip)
    assert failure.code() is grpc.StatusCode.UNIMPLEMENTED
    assert complete(channel).completion == TEXT


def test_a_caller_that_sends_no_message_is_not_waited_for(make_world):
    world = make_world(grpc_bind=unused_address(), body_timeout_s=0.2)
    silence = threading.Event()
    with connected(world.context) as channel:
        call = channel.stream_unary(f"/{SERVICE}/Complete")
        with pytest.raises(grpc.RpcError) as caught:
            call(iter(lambda: silence.wait(10), True), timeout=30)
        silence.set()
        assert caught.value.code() is grpc.StatusCode.CANCELLED
        with pytest.raises(grpc.RpcError) as caught:
            call(iter(()), timeout=30)
        assert dict(caught.value.trailing_metadata())["forklift-code"] == "bad_request"


def test_a_key_is_needed_where_there_are_keys(make_world):
    world = make_world(grpc_bind=unused_address(), api_keys="k")
    with connected(world.context) as channel:
        for metadata in ((), (("authorization", "Bearer x"),)):
            failure, trailers = refusal(channel, metadata=metadata)
            assert failure.code() is grpc.StatusCode.UNAUTHENTICATED and trailers["forklift-code"] == "invalid_api_key"
        for metadata in ((("authorization", "Bearer k"),), (("x-api-key", "k"),)):
            assert complete(channel, metadata=metadata).completion == TEXT
        assert health(channel) == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            services(channel)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert SERVICE in services(channel, metadata=(("authorization", "Bearer k"),))


def health(channel, service=""):
    stub = health_pb2_grpc.HealthStub(channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30).status


def services(channel, **options):
    [found] = reflected(channel, list_services="", **options)
    return [one.name for one in found.list_services_response.service]


def reflected(channel, metadata=(), **asked):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    return list(stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**asked)]), metadata=metadata))


def test_health_is_that_of_the_server(channel, world):
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    assert health(channel) == health(channel, SERVICE) == serving
    world.board.set_state(0, "loading")
    wait_until(lambda: health(channel, SERVICE) == not_serving)
    world.board.set_state(0, "ready")
    wait_until(lambda: health(channel) == serving)


def test_a_tool_that_knows_no_protocol_learns_it_from_the_server(channel):
    assert SERVICE in services(channel)
    [found] = reflected(channel, file_containing_symbol=SERVICE)
    [described] = map(FileDescriptorProto.FromString, found.file_descriptor_response.file_descriptor_proto)
    [service] = described.service
    assert [one.name for one in service.method][:2] == ["Complete", "CompleteStream"]


def test_an_unknown_method_is_unimplemented(channel):
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{SERVICE}/Nothing")(b"", timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_calls_are_counted_and_drained(world):
    gate = Gate()
    world.inference.script = ["a", gate]
    with open_door(world.context) as door, grpc.insecure_channel(world.settings.grpc_bind) as channel:
        running = method(channel, "Complete", wire.CompleteReply).future(wire.CompleteRequest(prompt="a"))
        wait_until(lambda: world.num_places() == 1)
        assert door.num_calls == 1
        door.drain()
        with grpc.insecure_channel(world.settings.grpc_bind) as another:
            wait_until(lambda: refusal(another)[0].code() is grpc.StatusCode.UNAVAILABLE)
        gate.set()
        assert running.result(timeout=30).completion == "a"
        wait_until(lambda: door.num_calls == 0)


def test_callers_that_send_nothing_give_way_to_those_who_do(world):
    """More silent calls than there are readers; nobody else waits for their deadline."""
    silence = threading.Event()
    with open_door(world.context), grpc.insecure_channel(world.settings.grpc_bind) as channel:
        ask = channel.stream_unary(f"/{SERVICE}/Complete")
        silent = [ask.future(iter(lambda: silence.wait(30), True), timeout=60) for _ in range(200)]
        assert complete(channel).completion == TEXT
        assert sum(one.done() for one in silent) > 0
        for one in silent:
            one.cancel()
        silence.set()


def test_connections_that_say_nothing_are_few_and_end(world, monkeypatch):
    monkeypatch.setattr("app.rpc.server_options.MOST_CONNECTIONS", 3)
    monkeypatch.setattr("app.rpc.server_options.HANDSHAKE_MS", 500)
    host, port = world.settings.grpc_bind.split(":")
    with open_door(world.context), ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(socket.create_connection((host, int(port))))
        channel = stack.enter_context(grpc.insecure_channel(world.settings.grpc_bind))
        assert complete(channel, wait_for_ready=True).completion == TEXT


class Ended:
    """The context of a call that was over before a thread was free for it."""

    def __init__(self):
        self.code = None

    def invocation_metadata(self):
        return ()

    def time_remaining(self):
        return 30.0

    def add_callback(self, callback):
        return False

    def send_initial_metadata(self, metadata): ...
    def set_details(self, details): ...
    def set_trailing_metadata(self, metadata): ...

    def set_code(self, code):
        self.code = code


def test_a_call_that_ended_before_its_turn_does_no_work(world):
    context = Ended()
    with open_door(world.context) as door:
        [calls] = door._calls
        path = f"/{SERVICE}/Complete"
        message = wire.CompleteRequest(prompt="a").SerializeToString()
        assert list(calls._handle(path, METHODS[path], iter([message]), context)) == []
    assert context.code is grpc.StatusCode.CANCELLED and world.inference.jobs == []
