"""Gated delta nets take whole passes by code of ours: it computes what the families' own does, or is not used."""

from __future__ import annotations

import random
import sys

import pytest
import torch
import transformers
from torch import nn

from app.engine.generation.plan import Chunk
from app.engine.kv.row_states import RowStates
from app.engine.runners.states.delta_net import DeltaNet, DeltaPass
from app.engine.runners.states.delta_rule import Blocks, Heads, batches, step
from app.engine.runners.states.joint_linear import JointLinear
from app.engine.runners.states.state_hosts import find_hosts
from app.engine.runners.states.whole_passes import LayerAround, whole_passes
from app.models.weights.packing import pack
from tests.thinned import few_of
from tests.unit.engine.driver import TokenLog, load
from tests.unit.engine.test_states import engine_of
from tests.unit.engine.test_windowed import require_answers_of_generate

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*falling back to its reference PyTorch.*"),
    pytest.mark.skipif(
        tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 24),
        reason="caches of older versions keep states otherwise: the check at the load leaves such models to generate",
    ),
]
NUM_HEADS, KEY_DIM, VALUE_DIM = 3, 8, 12


def random_heads(num_tokens: int, *, most_decay: float = 3.0) -> Heads:
    sizes = (num_tokens, NUM_HEADS)
    return Heads(
        nn.functional.normalize(torch.randn(*sizes, KEY_DIM), dim=-1) * KEY_DIM**-0.5,
        nn.functional.normalize(torch.randn(*sizes, KEY_DIM), dim=-1),
        torch.randn(*sizes, VALUE_DIM),
        -torch.rand(sizes) * most_decay,
        torch.rand(sizes),
    )


def one_by_one(heads: Heads, state: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What transformers' recurrence reads, and its state behind each token."""
    rule = sys.modules[transformers.Qwen3NextForCausalLM.__module__].torch_recurrent_gated_delta_rule
    read, left = [], []
    for at in range(len(heads.keys)):
        one = heads.part(at, at + 1)
        options = {"g": one.log_decays[None], "beta": one.strengths[None], "initial_state": state}
        # It divides queries by the root of their size, as ours are already.
        queries = one.queries[None] * KEY_DIM**0.5
        found, state = rule(queries, one.keys[None], one.values[None], output_final_state=True, **options)
        read.append(found[0])
        left.append(state)
    return torch.cat(read), left


@pytest.mark.parametrize("most_decay", [3.0, 500.0])
@pytest.mark.parametrize("lengths", [(1,), (5,), (64,), (65,), (150,), (3, 40, 41), (130, 1, 64)])
def test_blocks_read_and_leave_what_the_recurrence_does(lengths, most_decay):
    torch.manual_seed(0)
    heads = random_heads(sum(lengths), most_decay=most_decay)
    states = torch.randn(len(lengths), NUM_HEADS, KEY_DIM, VALUE_DIM)
    keeps = [sorted({1, length // 2 or 1, length}) for length in lengths]
    read, kept = Blocks(lengths, keeps, states.device).run(heads, states)
    begin = 0
    for at, length in enumerate(lengths):
        expected, left = one_by_one(heads.part(begin, begin + length), states[at : at + 1])
        torch.testing.assert_close(read[begin : begin + length], expected, rtol=1e-4, atol=1e-5)
        for num_tokens, state in zip(keeps[at], kept[at], strict=True):
            torch.testing.assert_close(state, left[num_tokens - 1], rtol=1e-4, atol=1e-5)
        begin += length


def test_a_sequence_that_is_not_sound_leaves_those_beside_it_sound():
    heads = random_heads(20)
    heads.values[3] = heads.keys[4] = float("nan")
    read, kept = Blocks([8, 12], [[8], [12]], heads.keys.device).run(heads, None)
    assert read[4:8].isnan().any() and read[8:].isfinite().all() and kept[1][0].isfinite().all()


def test_a_step_of_rows_reads_and_leaves_what_the_recurrence_does():
    torch.manual_seed(0)
    heads, states = random_heads(4), torch.randn(4, NUM_HEADS, KEY_DIM, VALUE_DIM)
    before = states.clone()
    read, left = step(heads, states)
    assert torch.equal(states, before)
    for row in range(4):
        expected, behind = one_by_one(heads.part(row, row + 1), states[row : row + 1])
        torch.testing.assert_close(read[row : row + 1], expected, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(left[row : row + 1], behind[0], rtol=1e-4, atol=1e-6)


def test_sequences_of_unlike_lengths_are_taken_one_by_one():
    assert batches([40, 50, 45]) == [range(3)]
    assert batches([400, 1]) == [range(1), range(1, 2)]


@pytest.mark.parametrize("family", ["qwen3_next", "qwen3_5"])
def test_all_delta_nets_take_whole_passes(model_folder, family):
    model = load(model_folder(family))
    hosts = find_hosts(model.checkpoint)
    wholes = whole_passes(model.checkpoint, hosts)
    assert [whole.layer for whole in wholes] == [host.layer for host in hosts] == [0, 2]
    # Experts keep the family's own layer around the mixer.
    kind = DeltaNet if family == "qwen3_next" else LayerAround
    assert all(isinstance(whole.forward, kind) for whole in wholes)


def test_a_delta_net_that_computes_something_else_keeps_its_own_code(model_folder):
    model = load(model_folder("qwen3_5"))
    hosts = find_hosts(model.checkpoint)
    own = hosts[0].module.norm.forward
    hosts[0].module.norm.forward = lambda states, gate: own(states, gate) * 1.01
    assert [whole.layer for whole in whole_passes(model.checkpoint, hosts)] == [2]


def test_a_layer_that_computes_something_else_keeps_its_own_code_around_the_mixer(model_folder):
    model = load(model_folder("qwen3_5"))
    hosts = find_hosts(model.checkpoint)
    layer = model.checkpoint.model.model.layers[0]
    own = layer.mlp.forward
    layer.mlp.forward = lambda states: own(states) * 1.01
    assert [type(whole.forward) for whole in whole_passes(model.checkpoint, hosts)] == [DeltaNet, LayerAround]


@pytest.mark.slow
@pytest.mark.parametrize("family", few_of(["qwen3_5", "qwen3_next"], 1))
def test_layers_whose_weights_lie_side_by_side_answer_as_generate_does(model_folder, monkeypatch, family):
    model = load(model_folder(family))
    pack(model.checkpoint, num_rows=1)
    engine = engine_of(model)
    require_answers_of_generate(model, engine, TokenLog(monkeypatch), random.Random(1))


def test_16_bits_compute_what_the_family_does(model_folder):
    model = load(model_folder("qwen3_5"), FORKLIFT_DTYPE="bfloat16")
    assert len(whole_passes(model.checkpoint, find_hosts(model.checkpoint))) == 2


def test_chunks_of_a_pass_leave_what_each_leaves_alone(model_folder):
    model = load(model_folder("qwen3_next"))
    net = DeltaNet(find_hosts(model.checkpoint)[0].module)
    hidden = torch.randn(30, model.checkpoint.model.config.hidden_size)
    chunks = [Chunk(2, [0] * 10, 0, snapshots=((4, 3),)), Chunk(1, [0] * 20, 0)]
    together, alone = RowStates(4, 1), RowStates(4, 1)
    with torch.inference_mode():
        found = net(hidden, DeltaPass(0, chunks, hidden.device), together)
        together.commit()
        parts = []
        for chunk, part in ((Chunk(2, [0] * 4, 0), hidden[:4]), (Chunk(1, [0] * 20, 0), hidden[10:])):
            parts.append(net(part, DeltaPass(0, [chunk], hidden.device), alone))
            alone.commit()
        alone.copy_slot(2, 3)
        parts.insert(1, net(hidden[4:10], DeltaPass(0, [Chunk(2, [0] * 6, 4)], hidden.device), alone))
        alone.commit()
    torch.testing.assert_close(found, torch.cat(parts), rtol=1e-4, atol=1e-5)
    for name in (("conv", 0), ("recurrent", 0)):
        torch.testing.assert_close(together.read(name, 1, 3), alone.read(name, 1, 3), rtol=1e-4, atol=1e-5)


def test_joint_layers_give_what_each_gives_also_with_what_is_hooked_to_one():
    parent = nn.ModuleDict({name: nn.Linear(6, size, bias=False) for name, size in (("a", 3), ("b", 5))})
    inputs = torch.randn(4, 6)
    with torch.inference_mode():
        expected = torch.cat([parent[name](inputs) for name in parent], dim=-1)
        for one in parent.values():
            one.weight = nn.Parameter(one.weight.detach().t().contiguous().t(), requires_grad=False)
        joint = JointLinear(parent, ("a", "b"))
        assert parent["a"].weight.untyped_storage().data_ptr() == parent["b"].weight.untyped_storage().data_ptr()
        torch.testing.assert_close(joint(inputs), expected)
        torch.testing.assert_close(torch.cat([parent[name](inputs) for name in parent], dim=-1), expected)
        parent["b"].register_forward_hook(lambda _module, _inputs, output: output + 1)
        torch.testing.assert_close(joint(inputs)[:, 3:], expected[:, 3:] + 1)
