"""Models take turns, and each is told whether others wait for its step."""

from __future__ import annotations

from dataclasses import dataclass, field

from app.engine.thread.rotation import Rotation
from app.engine.thread.stall_clock import StallClock


@dataclass
class Stepped:
    """Stands in for a served model with ``num_steps`` left, and for its engine."""

    num_steps: int
    shared: list[bool] = field(default_factory=list)

    @property
    def engine(self):
        return self

    @property
    def has_work(self) -> bool:
        return self.num_steps > 0

    def step(self, *, is_shared: bool) -> None:
        self.num_steps -= 1
        self.shared.append(is_shared)


def test_a_step_is_shared_as_long_as_another_model_has_work():
    one, other, idle = Stepped(4), Stepped(2), Stepped(0)
    rotation = Rotation([one, other, idle], StallClock(60, 60))
    while rotation.step():
        pass
    assert one.shared == [True, True, False, False]
    assert other.shared == [True, True]
    assert idle.shared == []
