"""Adapters that come and go on a real server: nobody loses an answer, and every worker has the same ones."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import requests

from tests.e2e.conftest import Forklift
from tests.service.conftest import LOAD_PATIENCE_S, server_starter, wait_for
from tests.tiny_adapters import save_adapter

pytestmark = pytest.mark.slow  # unit and contract tests have each of it with an engine in process

KEY = {"Authorization": "Bearer secret"}
SERVED, COMING = ("base", "team-0", "team-1"), ("team-2", "team-3")


class Adapted(Forklift):
    """A server whose models and adapters are asked by name."""

    def complete(self, model: str, num_tokens: int = 24, **fields: object) -> requests.Response:
        body = {"prompt": "def f(x):", "max_new_tokens": num_tokens, "temperature": 0, "ignore_eos": True}
        return self.post("/complete", json={**body, "model": model, **fields}, headers=KEY)

    def text(self, model: str) -> str:
        answer = self.complete(model)
        assert answer.status_code == 200, answer.text
        return answer.json()["completion"]

    def change(self, what: str, name: str, **fields: object) -> int:
        return self.post(f"/v1/{what}_lora_adapter", json={"lora_name": name, **fields}, headers=KEY).status_code

    def by_worker(self, model: str, num_workers: int) -> dict[str, set[tuple[int, str | None]]]:
        """Status and text that each worker answers."""
        found: dict[str, set[tuple[int, str | None]]] = {}

        def ask(_: int) -> None:
            # Together, so that none of the workers is the only one without work.
            answer = self.complete(model)
            told = answer.status_code, answer.json().get("completion")
            found.setdefault(answer.headers["X-Worker"], set()).add(told)

        def is_known() -> bool:
            with ThreadPoolExecutor(2 * num_workers) as pool:
                list(pool.map(ask, range(2 * num_workers)))
            return len(found) == num_workers

        wait_for(is_known, f"answers of {num_workers} workers")
        return found

    def pids(self) -> list[int]:
        return [row["pid"] for row in self.rows() if row["state"] == "ready"]


@pytest.fixture
def root(model_folder, tmp_path):
    for seed in range(4):
        folder = tmp_path / "adapters" / f"team-{seed}"
        save_adapter(folder, model_folder("llama"), "llama", seed=seed, rank=2 + 2 * seed)
    return tmp_path / "adapters"


@pytest.fixture
def start_adapted(tmp_path, model_folder, root):
    (tmp_path / "servers").mkdir()
    starter = server_starter(tmp_path / "servers", Adapted)
    start = next(starter)

    def started(**settings: object) -> Adapted:
        fields = {"model": model_folder("llama"), "model_name": "base", "adapters": root, "api_keys": "secret"}
        return start(**{**fields, "dtype": "float32", "max_batch_size": 6, "max_queue": 64, **settings})

    yield started
    next(starter, None)


class Callers:
    """Threads that ask for ``models`` in turn until they are told to stop, and count what they get."""

    def __init__(self, server: Adapted, expected: dict[str, str], num_threads: int = 6):
        self.seen: Counter[str] = Counter()
        self._server, self._expected = server, expected
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(at,)) for at in range(num_threads)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> Counter[str]:
        self._is_over.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
        return self.seen

    def _ask(self, at: int) -> None:
        names = list(self._expected)
        while not self._is_over.is_set():
            name = names[at % len(names)]
            self.seen[self._outcome(name, is_streamed=at % 2 == 0)] += 1
            at += 1

    def _outcome(self, name: str, *, is_streamed: bool) -> str:
        try:
            answer = self._server.complete(name, stream=is_streamed)
            if answer.status_code != 200:
                return f"{answer.status_code} {answer.text}"
            text = streamed_text(answer.text) if is_streamed else answer.json()["completion"]
        except requests.RequestException as error:
            return repr(error)
        return "right" if text == self._expected[name] else f"another text of {name}: {text!r}"


def streamed_text(body: str) -> str:
    events = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: {")]
    return "".join(json.loads(event).get("completion", "") for event in events)


def test_adapters_come_and_go_under_load_and_nothing_is_lost(start_adapted):
    server = start_adapted(workers=1)
    texts = {name: server.text(name) for name in (*SERVED, *COMING)}
    assert len(set(texts.values())) == 5
    callers = Callers(server, {name: texts[name] for name in SERVED})
    for at in range(60):
        name = COMING[at % 2]
        assert server.change("unload", name) == 200
        assert server.complete(name).status_code == 404
        assert server.change("load", name) == 200
        assert server.text(name) == texts[name]
    seen = callers.stop()
    assert set(seen) == {"right"} and seen["right"] > 60, seen


def test_who_runs_when_an_adapter_is_unloaded_goes_on(start_adapted):
    server = start_adapted(workers=1)
    whole = server.complete("team-2", 200).json()["completion"]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.complete, "team-2", 200)
        wait_for(lambda: sum(row["num_running"] for row in server.rows()), "the answer to begin")
        assert server.change("unload", "team-2") == 200
        assert running.result().json()["completion"] == whole
    assert server.complete("team-2").status_code == 404


def test_all_workers_answer_the_same_whoever_dies_lags_or_starts_later(start_adapted, root, model_folder):
    server = start_adapted(workers=2, num_ready=2)
    nowhere = {"0": {(404, None)}, "1": {(404, None)}}
    assert server.change("unload", "team-3") == 200
    assert server.by_worker("team-3", 2) == nowhere
    # Another adapter under an old name, put into service by one request to one worker.
    shutil.rmtree(root / "team-2")
    save_adapter(root / "team-2", model_folder("llama"), "llama", seed=9)
    assert server.change("load", "team-2", load_inplace=True) == 200
    told = server.by_worker("team-2", 2)
    assert told["0"] == told["1"] and len(told["0"]) == 1
    # One that is killed, and its successor.
    killed = server.pids()[0]
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: killed not in server.pids() and len(server.pids()) == 2, "a new worker", LOAD_PATIENCE_S)
    assert (server.by_worker("team-2", 2), server.by_worker("team-3", 2)) == (told, nowhere)
    # New workers for all.
    before = set(server.pids())
    server.signal(signal.SIGHUP)
    wait_for(lambda: len(set(server.pids()) - before) == 2, "new workers", LOAD_PATIENCE_S)
    assert (server.by_worker("team-2", 2), server.by_worker("team-3", 2)) == (told, nowhere)
    # One that does not run holds nobody up, and knows what was changed once it goes on.
    stopped = psutil.Process(server.pids()[1])
    stopped.suspend()
    try:
        assert server.change("load", "team-3") == 200
        expected = server.text("team-3")
    finally:
        stopped.resume()
    assert server.by_worker("team-3", 2) == {"0": {(200, expected)}, "1": {(200, expected)}}


def test_who_starts_late_does_not_serve_what_others_never_had(start_adapted, root, model_folder):
    """Files that are replaced and not loaded: a worker that reads now refuses them, where others have the old ones."""
    server = start_adapted(workers=2, num_ready=2)
    [old] = set.union(*server.by_worker("team-2", 2).values())
    shutil.rmtree(root / "team-2")
    save_adapter(root / "team-2", model_folder("llama"), "llama", seed=9)
    killed = server.pids()[0]
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: killed not in server.pids() and len(server.pids()) == 2, "a new worker", LOAD_PATIENCE_S)
    assert set.union(*server.by_worker("team-2", 2).values()) == {old, (503, None)}
    assert "was changed since it was put into service" in server.log()
    assert server.change("load", "team-2", load_inplace=True) == 200
    [new] = set.union(*server.by_worker("team-2", 2).values())
    assert new[0] == 200 and new != old


@pytest.mark.chaos
def test_two_hundred_loads_and_unloads_do_not_grow_the_worker(start_adapted):
    server = start_adapted(workers=1)
    texts = {name: server.text(name) for name in COMING}
    process, sizes = psutil.Process(server.pids()[0]), []
    for at in range(200):
        name = COMING[at % 2]
        assert server.change("unload", name) == 200
        assert server.change("load", name) == 200
        assert server.text(name) == texts[name]
        sizes.append(process.memory_info().rss)
    print("resident MiB after 20, 60, 100, 200:", [round(sizes[at - 1] / 2**20, 1) for at in (20, 60, 100, 200)])
    assert sizes[-1] - sizes[59] < 4 << 20
