"""Callers that go on asking while something happens to a cluster, and a count of what they got."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import requests

# A bound for callers that a test forgets.
LONGEST_S = 600.0
NUM_CALLERS = 4
# Before and behind what happens.
CALM_S = 4.0
# One for each call that the process which died had in its hands, and one that reached it before anybody knew.
MOST_LOST = 2 * NUM_CALLERS
BODY = {"prompt": "def f(", "max_new_tokens": 48, "ignore_eos": True, "temperature": 0}


class Callers:
    """``num_callers`` threads, every second of which streams. ``outcomes`` are words for what came of each call."""

    def __init__(self, url: str, num_callers: int = NUM_CALLERS):
        self.outcomes: Counter[str] = Counter()
        self.odd: list[str] = []
        self._url = url
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(at % 2 == 1,)) for at in range(num_callers)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    @property
    def num_lost(self) -> int:
        """Calls without an answer of ours."""
        return sum(self.outcomes[word] for word in ("closed", "cut", "late", "plain 500"))

    def report(self, what: str, took_s: float) -> None:
        """One line of what they saw."""
        print(f"\n{what}: {dict(self.outcomes)}, {took_s:.1f} s {self.odd[:2]}")

    def _run(self, is_streamed: bool) -> None:
        end_s = time.monotonic() + LONGEST_S
        while not self._is_over.is_set() and time.monotonic() < end_s:
            word = self._call(is_streamed)
            with self._lock:
                self.outcomes[word] += 1
            if word != "answered":
                time.sleep(0.2)

    def _call(self, is_streamed: bool) -> str:
        try:
            answer = requests.post(f"{self._url}/complete", json=BODY | {"stream": is_streamed}, timeout=60)
        except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError):
            return "cut"
        except requests.ReadTimeout:
            return "late"
        except requests.ConnectionError:
            return "closed"
        if answer.status_code == 200:
            is_whole = not is_streamed or answer.text.endswith("[DONE]\n\n")
            return "answered" if is_whole else ("error event" if '"error"' in answer.text else "cut")
        if answer.headers.get("Content-Type", "").startswith("application/json"):
            return f"{answer.status_code} {answer.json()['error']['code']}"
        self.odd.append(f"{answer.status_code} {answer.text[:200]}")
        return f"plain {answer.status_code}"


@contextmanager
def calling(url: str, num_callers: int = NUM_CALLERS) -> Iterator[Callers]:
    """Callers while the block runs."""
    callers = Callers(url, num_callers)
    callers.start()
    try:
        yield callers
    finally:
        callers.stop()
