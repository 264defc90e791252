"""Layers of encoders by compiled C++ give what eager ones give, whatever stands in a pass; wrong ones are left out."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
import torch
from structlog.testing import capture_logs
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification

from app.core.settings import load_settings
from app.engine.checks import features
from app.engine.loading import encoder_change
from app.engine.loading.background import wish_of
from app.engine.loading.build import prepare
from app.engine.loading.compiling.packaging import make_package
from app.engine.loading.encoder_change import EncoderChange
from app.models.compiled import compiled_step, native_build
from app.models.encoders.encoder_code import has_native_layers, install, layers_shape
from app.models.encoders.unpadded import passing, unpad
from app.models.weights import packing
from app.models.weights.packing import transposed
from tests.native_passes import COMPILER, native_encoder

pytestmark = pytest.mark.skipif(shutil.which(COMPILER) is None, reason="needs a C++ compiler")

# Blocks of rows that are whole and in part, one text and many, a text longer than a block of queries.
BATCHES = [[1], [5], [6, 13, 1, 97, 2, 11, 30], [3] * 40, [200, 104]]
# Heads of 32, 10 and 20 numbers: panels that are whole and in part.
SHAPES = [(64, 2, 128, "gelu"), (40, 4, 36, "gelu_new"), (60, 3, 100, "relu"), (32, 1, 64, "gelu_pytorch_tanh")]


def made(shape, kind=BertForSequenceClassification):
    hidden, heads, inner, activation = shape
    torch.manual_seed(3)
    sizes = {"hidden_size": hidden, "num_attention_heads": heads, "intermediate_size": inner, "num_hidden_layers": 2}
    config = BertConfig(vocab_size=90, **sizes, hidden_act=activation, pad_token_id=0, num_labels=3)
    model = kind(config).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    unpad(model, reads_states=kind is BertForTokenClassification)
    return model


def logits_of(model, lengths):
    rng = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 90, (len(lengths), max(lengths)), generator=rng)
    mask = (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).long()
    with torch.inference_mode(), passing(model, lengths):
        found = model(input_ids=ids * mask, attention_mask=mask).logits
    return torch.cat([row[:length] for row, length in zip(found, lengths, strict=True)]) if found.dim() > 2 else found


@pytest.mark.parametrize("kind", [BertForSequenceClassification, BertForTokenClassification])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("is_transposed", [False, True])
def test_a_pass_gives_what_eager_layers_give(kind, shape, is_transposed):
    model = made(shape, kind)
    if is_transposed:
        for layer in [one for one in model.modules() if type(one) is torch.nn.Linear]:
            transposed(layer)
    for lengths in BATCHES:
        install(model, None)
        expected = logits_of(model, lengths)
        install(model, native_encoder(model))
        torch.testing.assert_close(logits_of(model, lengths), expected, atol=3e-5, rtol=3e-5)


def test_sums_are_about_as_exact_as_eager_ones():
    model = made((384, 12, 1536, "gelu"), BertForTokenClassification)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.02) if weight.dim() > 1 else torch.nn.init.ones_(weight)
    native, lengths = native_encoder(model), [13, 20]
    eager = logits_of(model, lengths)
    install(model, native)
    found = logits_of(model, lengths)
    install(model, None)
    exact = logits_of(model.double(), lengths)
    assert (found - exact).abs().max() < 2 * (eager - exact).abs().max()


def test_several_threads_give_what_one_gives():
    model = made(SHAPES[0])
    install(model, native_encoder(model))
    threads = torch.get_num_threads()
    try:
        found = []
        for num_threads in (1, 3):
            torch.set_num_threads(num_threads)
            found.append(logits_of(model, BATCHES[2]))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


def test_the_code_alone_takes_all_threads():
    model, seen = made(SHAPES[0]), []
    native = native_encoder(model)
    run = native.run
    native.run = lambda *args, **options: (
        seen.append((torch.get_num_threads(), options["num_threads"])) or run(*args, **options)
    )
    install(model, native)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        logits_of(model, BATCHES[1])
        assert (seen, torch.get_num_threads()) == ([(1, 3)], 3)
    finally:
        torch.set_num_threads(threads)


def test_a_pass_runs_on_the_code_only_where_that_is_worth_it():
    native = native_encoder(made(SHAPES[0]))
    native._pays = {16: False, 128: True}
    assert [native.serves(num) for num in (1, 16, 100, 128, 5000)] == [False, False, False, True, True]
    assert native.for_any_size().serves(1)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.half(),
        lambda model: setattr(model.config, "hidden_act", "silu"),
        lambda model: setattr(model.bert.encoder.encoder.layer[1].output.LayerNorm, "eps", 0.1),
        lambda model: setattr(model.bert.encoder.encoder.layer[0].output, "dense", torch.nn.Identity()),
    ],
)
def test_layers_of_another_kind_have_no_code(change):
    model = made(SHAPES[0])
    assert not isinstance(layers_shape(model), str)
    change(model)
    assert isinstance(layers_shape(model), str)


@pytest.fixture
def packages(monkeypatch):
    """Every encoder has a package; ``spoil`` changes what its code gives."""
    given = SimpleNamespace(spoil=lambda states: states)

    def find(model, _settings):
        native = native_encoder(model)
        run = native.run
        native.run = lambda states, lengths, **options: given.spoil(run(states, lengths, **options))
        return native

    for module in (features, encoder_change):
        monkeypatch.setattr(module, "find_layers", find)
    return given


def prepared(folder, **environ):
    return prepare(load_settings({"FORKLIFT_MODEL": str(folder), **environ}), lambda _: None)


@pytest.mark.parametrize("name", ["bert-classify", "roberta-rerank", "bert-entities", "electra-classify"])
def test_a_package_is_used_from_the_start(packages, model_folder, name):
    loaded = prepared(model_folder(name))
    assert loaded.is_compiled and not loaded.dropped
    assert has_native_layers(loaded.model.checkpoint.model)
    assert not prepared(model_folder(name), FORKLIFT_COMPILE="never").is_compiled


def test_code_that_gives_something_else_is_left_out(packages, model_folder):
    packages.spoil = lambda states: states * 1.01
    with capture_logs() as logs:
        loaded = prepared(model_folder("bert-classify"))
    assert loaded.dropped == ("compiled",) and not loaded.is_compiled
    assert [one["step"] for one in logs if one["event"] == "step_failed_check"] == ["compiled"]


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_a_serving_model_changes_to_code_that_gives_the_same_and_to_no_other(packages, model_folder, factor):
    loaded = prepared(model_folder("bert-classify"), FORKLIFT_COMPILE="never")
    packages.spoil = lambda states: states * factor
    change = EncoderChange(loaded.model, loaded.settings)
    assert change.advance() is False and change.reason is None
    assert (change.failure is None) == has_native_layers(loaded.model.checkpoint.model) == (factor == 1.0)


def test_a_package_is_wished_for_where_there_could_be_one(model_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", COMPILER)
    environ = {"FORKLIFT_CACHE_DIR": str(tmp_path)}
    wish = wish_of(prepared(model_folder("bert-classify"), **environ), 0)
    assert wish is not None and wish.shape.num_layers == 2
    assert wish_of(prepared(model_folder("modernbert-classify"), **environ), 0) is None


@pytest.mark.parametrize("compiles", ["auto", "never"])
@pytest.mark.parametrize("compiler", [COMPILER, "no-such-compiler"])
def test_large_weights_stay_readable_where_code_may_come(model_folder, monkeypatch, tmp_path, compiles, compiler):
    """A process that makes a package loads its model with COMPILE=never."""
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setattr(packing, "LEAST_BYTES", 0)
    environ = {"FORKLIFT_CACHE_DIR": str(tmp_path), "FORKLIFT_COMPILE": compiles}
    loaded = prepared(model_folder("bert-classify"), **environ)
    assert isinstance(layers_shape(loaded.model.checkpoint.model), str) == (compiler != COMPILER)
    assert not loaded.dropped


def test_a_package_that_was_made_is_found_by_the_next_load(model_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", COMPILER)
    monkeypatch.setattr(native_build, "FLAGS", tuple("-O1" if one == "-O3" else one for one in native_build.FLAGS))
    # Whether it is faster is not what is asked here.
    monkeypatch.setattr(compiled_step, "LEAST_GAIN", -1000.0)
    monkeypatch.setattr(packing, "LEAST_BYTES", 0)
    environ = {"FORKLIFT_MODEL": str(model_folder("bert-classify")), "FORKLIFT_CACHE_DIR": str(tmp_path / "cache")}
    package = make_package(load_settings(environ), lambda _: None)
    assert set(package.about["steps_ms"]) == {"16", "128"}
    assert prepared(model_folder("bert-classify"), **environ).is_compiled
    # Its layers are of the same shape.
    cache = {"FORKLIFT_CACHE_DIR": environ["FORKLIFT_CACHE_DIR"]}
    assert prepared(model_folder("electra-classify"), **cache).is_compiled
