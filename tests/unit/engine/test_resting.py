"""A worker that idles after a peak gives the memory of the peak back by itself."""

from __future__ import annotations

import threading
import time

from app.core.work.jobs import Job
from app.core.work.sampling_params import SamplingParams
from app.engine.kv import trimming
from app.engine.thread.inference import make_inference
from tests.unit.engine.test_inference import end_of, load_settings
from tests.waiting import LIMIT_S, wait_until


def test_an_idle_thread_wakes_to_shrink_the_cache_and_then_waits_without_a_limit(model_folder, monkeypatch):
    monkeypatch.setattr(trimming, "PERIOD_S", 0.2)
    settings = load_settings({"FORKLIFT_MODEL": str(model_folder("qwen2"))})
    is_ready = threading.Event()
    inference = make_inference(settings, 0, lambda state, _: is_ready.set() if state == "ready" else None)
    inference.start()
    try:
        assert is_ready.wait(LIMIT_S)
        job = Job("long", [30] * 400, SamplingParams(200, ignore_eos=True))
        inference.submit(job)
        end_of(job)
        cache = inference.handles[0].prepared.engine.runner.cache
        wait_until(lambda: cache.capacity == 256)
        wait_until(lambda: inference._rotation.rest(time.monotonic()) is None)
        assert inference.defect() is None
        again = Job("again", [30] * 400, SamplingParams(4, ignore_eos=True))
        inference.submit(again)
        end_of(again)
        assert again.usage.completion_tokens == 4
    finally:
        inference._stop()
