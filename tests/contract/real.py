"""The HTTP room on the real inference thread with a tiny model, in this process."""

from __future__ import annotations

from pathlib import Path

from flask.testing import FlaskClient

from app.core.settings import load_settings
from app.engine.thread.inference import make_inference
from app.http.application.factory import create_app
from app.serve.board.admission import Admission
from app.serve.board.slot_board import SlotBoard
from app.serve.context import WorkerContext
from app.serve.processes.startup import make_adapters
from tests.waiting import wait_until


class RealWorld:
    """One worker without processes; the keyword arguments are settings, ``models`` among them."""

    def __init__(self, folder: Path | None = None, **settings: object):
        named = {f"FORKLIFT_{name.upper()}": str(value) for name, value in settings.items()}
        if folder is not None:
            named["FORKLIFT_MODEL"] = str(folder)
        self.settings = load_settings(named)
        self.board = SlotBoard([("GPU-a",)])
        slot = self.board.lease(4321)
        assert slot is not None
        self.inference = make_inference(self.settings, slot, lambda *state: self.board.set_state(slot, *state))
        admission = Admission(self.settings, self.board, slot)
        self.context = WorkerContext(self.settings, slot, self.board, admission, self.inference)
        self.context.adapters = make_adapters(self.settings, self.board)
        self.inference.start()
        wait_until(lambda: self.board.rows()[0].state == "ready", limit_s=60)

    def client(self) -> FlaskClient:
        return create_app(self.context, ping_interval_s=5).test_client()

    def num_places(self) -> int:
        row = self.board.rows()[0]
        return row.num_running + row.num_waiting

    def stop(self) -> None:
        """End the thread; every place must have been given back."""
        wait_until(lambda: self.num_places() == 0)
        self.inference._stop()
