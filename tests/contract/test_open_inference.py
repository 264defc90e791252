"""The Open Inference Protocol over HTTP and gRPC: tensors in and out, equal to what the other routes answer."""

from __future__ import annotations

import struct

import pytest

from app.http.application.factory import create_app
from tests.contract.real import RealWorld
from tests.contract.rpc_bind import unused_address

TEXTS = ["a text", "another one"]
MASKED = ["a [MASK] b", "[MASK] and [MASK]"]


@pytest.fixture(scope="module")
def worlds(model_folder):
    """A model for vectors and one for masks, each with a gRPC port to be opened."""
    found = {
        name: RealWorld(model_folder(name), model_name=name, grpc_bind=unused_address())
        for name in ("sentence", "bert")
    }
    yield found
    for world in found.values():
        world.stop()


@pytest.fixture
def vectors(worlds):
    return create_app(worlds["sentence"].context).test_client()


@pytest.fixture
def masks(worlds):
    return create_app(worlds["bert"].context).test_client()


def body_of(texts, **more):
    return {"inputs": [{"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}], **more}


def outputs_of(answer):
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return {one["name"]: one for one in answer.get_json()["outputs"]}


def test_vectors_are_those_of_v1_embeddings(vectors):
    answer = vectors.post("/v2/models/sentence/infer", json=body_of(TEXTS, id="r7"))
    assert answer.get_json()["id"] == "r7" and answer.get_json()["model_name"] == "sentence"
    found = outputs_of(answer)["embedding"]
    expected = vectors.post("/v1/embeddings", json={"input": TEXTS}).get_json()["data"]
    assert found["shape"] == [2, len(expected[0]["embedding"])] and found["datatype"] == "FP32"
    assert found["data"] == pytest.approx([x for one in expected for x in one["embedding"]], abs=1e-5)
    short = outputs_of(vectors.post("/v2/models/sentence/infer", json=body_of(TEXTS, parameters={"dimensions": 4})))
    assert short["embedding"]["shape"] == [2, 4]


def test_masks_are_rows_that_say_which_text_they_stand_in(masks):
    found = outputs_of(masks.post("/v2/models/bert/infer", json=body_of(MASKED, parameters={"top_k": 2})))
    assert found["text_index"]["data"] == [0, 1, 1]
    assert {tuple(one["shape"]) for name, one in found.items() if name != "text_index"} == {(3, 2)}
    expected = masks.post("/fill-mask", json={"text": MASKED, "top_k": 2}).get_json()
    rows = [expected[0], *expected[1]]
    for name in ("token", "token_str", "sequence"):
        assert found[name]["data"] == [one[name] for row in rows for one in row]
    only = outputs_of(masks.post("/v2/models/bert/infer", json=body_of(MASKED, outputs=[{"name": "token"}])))
    assert set(only) == {"token"}


def test_servers_and_models_are_described(vectors, masks):
    assert vectors.get("/v2").get_json()["name"] == "forklift"
    assert vectors.get("/v2/health/live").get_json() == {"live": True}
    assert vectors.get("/v2/health/ready").get_json() == {"ready": True}
    assert vectors.get("/v2/models/sentence/ready").get_json() == {"name": "sentence", "ready": True}
    [output] = vectors.get("/v2/models/sentence/versions/1").get_json()["outputs"]
    assert output["name"] == "embedding" and output["shape"][0] == -1 and output["shape"][1] > 0
    described = masks.get("/v2/models/bert").get_json()
    assert described["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert [one["name"] for one in described["outputs"]][:2] == ["token", "score"]


GOOD = {"name": "text", "shape": [2], "datatype": "BYTES", "data": TEXTS}


@pytest.mark.parametrize(
    ("place", "changes", "status"),
    [
        ("another", {}, 404),
        ("sentence/versions/2", {}, 404),
        ("sentence", {"inputs": []}, 400),
        ("sentence", {"inputs": [{**GOOD, "name": "x"}]}, 400),
        ("sentence", {"inputs": [{**GOOD, "shape": [3]}]}, 400),
        ("sentence", {"inputs": [{**GOOD, "datatype": "INT64"}]}, 400),
        ("sentence", {"inputs": [{**GOOD, "parameters": {"x": 1}}]}, 400),
        ("sentence", {"outputs": [{"name": "logits"}]}, 400),
        ("sentence", {"parameters": {"top_k": 1}}, 400),
        ("sentence", {"parameters": {"dimensions": 100000}}, 400),
    ],
)
def test_what_cannot_be_done_is_told_in_the_protocols_form(vectors, place, changes, status):
    answer = vectors.post(f"/v2/models/{place}/infer", json=body_of(TEXTS) | changes)
    assert answer.status_code == status
    assert list(answer.get_json()) == ["error"] and isinstance(answer.get_json()["error"], str)


def test_a_model_that_generates_has_no_tensors(make_world):
    world = make_world()
    answer = create_app(world.context).test_client().get("/v2/models/scripted")
    assert answer.status_code == 400 and "its task is generate" in answer.get_json()["error"]


@pytest.fixture(params=["sentence", "bert"])
def rpc(request, worlds):
    """The name of a model, a client over HTTP, and a channel to the gRPC port."""
    pytest.importorskip("grpc", reason="the extra grpc is not installed")
    from tests.contract.rpc_door import connected

    world = worlds[request.param]
    with connected(world.context) as channel:
        yield request.param, create_app(world.context).test_client(), channel


def asked(channel, method, /, **fields):
    from app.rpc.methods.inference_protocol import open_inference_pb2 as wire

    kinds = (getattr(wire, f"{method}Request"), getattr(wire, f"{method}Response"))
    path = f"/inference.GRPCInferenceService/{method}"
    call = channel.unary_unary(path, kinds[0].SerializeToString, kinds[1].FromString)
    return call(kinds[0](**fields), timeout=60)


def test_the_grpc_form_answers_the_same(rpc):
    name, client, channel = rpc
    texts = MASKED if name == "bert" else TEXTS
    expected = outputs_of(client.post(f"/v2/models/{name}/infer", json=body_of(texts)))
    tensor = {"name": "text", "datatype": "BYTES", "shape": [2]}
    contents = {"bytes_contents": [one.encode() for one in texts]}
    found = asked(channel, "ModelInfer", model_name=name, id="r7", inputs=[{**tensor, "contents": contents}])
    assert (found.model_name, found.id, [one.name for one in found.outputs]) == (name, "r7", list(expected))
    raw = b"".join(struct.pack("<I", len(one)) + one.encode() for one in texts)
    packed = asked(channel, "ModelInfer", model_name=name, inputs=[tensor], raw_input_contents=[raw])
    for one, data in zip(found.outputs, packed.raw_output_contents, strict=True):
        wanted = expected[one.name]
        assert (one.datatype, list(one.shape)) == (wanted["datatype"], wanted["shape"])
        if one.datatype == "FP32":
            assert list(one.contents.fp32_contents) == pytest.approx(wanted["data"], abs=1e-5)
            assert struct.unpack(f"<{len(data) // 4}f", data) == pytest.approx(wanted["data"], abs=1e-5)
        elif one.datatype == "INT64":
            assert list(one.contents.int64_contents) == wanted["data"]
            assert struct.unpack(f"<{len(data) // 8}q", data) == tuple(wanted["data"])
        else:
            assert [text.decode() for text in one.contents.bytes_contents] == wanted["data"]


def test_the_grpc_form_describes_and_refuses(rpc):
    import grpc

    name, client, channel = rpc
    assert asked(channel, "ServerLive").live and asked(channel, "ServerReady").ready
    assert asked(channel, "ModelReady", name=name).ready
    assert asked(channel, "ServerMetadata").name == "forklift"
    described = asked(channel, "ModelMetadata", name=name)
    assert [one.name for one in described.outputs] == [
        one["name"] for one in client.get(f"/v2/models/{name}").get_json()["outputs"]
    ]
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1]}
    for fields, code in (
        ({"model_name": "another", "inputs": [{**tensor, "contents": {"bytes_contents": [b"a"]}}]}, "NOT_FOUND"),
        ({"model_name": name, "inputs": [{**tensor, "contents": {"bytes_contents": [b"\xff"]}}]}, "INVALID_ARGUMENT"),
        ({"model_name": name, "inputs": [tensor], "raw_input_contents": [b"\x05\0\0\0ab"]}, "INVALID_ARGUMENT"),
        ({"model_name": name, "inputs": [tensor], "raw_input_contents": [b"", b""]}, "INVALID_ARGUMENT"),
        ({"model_name": name, "inputs": [tensor], "parameters": {"x": {}}}, "INVALID_ARGUMENT"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            asked(channel, "ModelInfer", **fields)
        assert caught.value.code().name == code
