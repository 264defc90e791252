"""Passes bring their numbers to the device in transfers that nobody waits for."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import _disable_current_modes

from app.engine.generation.plan import Chunk
from app.engine.runners.eager import EagerRunner
from app.engine.runners.graphs.op_recorder import Noting, UncapturableError
from app.engine.runners.mixed import MixedRunner
from app.engine.runners.windowed import WindowedRunner
from app.models.checkpoint import transfer
from app.models.checkpoint.transfer import sent_whole
from tests.unit.engine.driver import load

RUNNERS = {
    "codegen": EagerRunner,
    "llama": MixedRunner,
    "gemma3": lambda *args: WindowedRunner(*args, most_new=40),
}


@pytest.fixture
def unseen_transfers(monkeypatch):
    """What ``sent`` brings is no operation of the pass: on a GPU its copy is launched as all else."""
    sent = transfer.sent

    def unseen(*args):
        with _disable_current_modes():
            return sent(*args)

    monkeypatch.setattr(transfer, "sent", unseen)


@torch.inference_mode()
@pytest.mark.parametrize("family", RUNNERS)
def test_passes_of_whole_rows_wait_for_no_number(model_folder, unseen_transfers, family):
    """``torch.tensor`` on a GPU returns when the device has done all that it was told before."""
    runner = RUNNERS[family](load(model_folder(family)).checkpoint, 3, 128)
    runner.prefill(0, [5] * 40, 0)
    with Noting():
        runner.prefill(1, [5, 6, 7], 0)
        runner.prefill(1, [8] * 20, 3)
        runner.decode([[9]], [40])
        runner.decode([[9], [8]], [41, 23])
        runner.decode([[9, 4], [8, 3]], [42, 24])
        if runner.can_mix:
            runner.mixed([9, 8], [44, 26], [Chunk(2, [5, 6, 7], 0)])
            runner.mixed([9], [45], [Chunk(2, [5, 6, 7], 3, True)])


def test_a_number_that_is_waited_for_is_found():
    with Noting(), pytest.raises(UncapturableError, match="from the host"):
        torch.tensor([1, 2, 3])


def test_whole_numbers_keep_their_kind_and_shape():
    assert sent_whole([[1, 2], [3, 4]], torch.device("cpu")).tolist() == [[1, 2], [3, 4]]
    assert sent_whole([], torch.device("cpu")).dtype == torch.int64
