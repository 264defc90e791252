"""Chat templates, rendered by a child process that is killed when one takes too long. HTTP threads.

One child for the whole worker, started at the first conversation. It ends when its pipe does.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from app.core.errors import InvalidParameterError, OverloadedError
from app.core.logs.logging import get_logger
from app.core.patience import held, left_s, too_late
from app.models.tokens.template_process import HEADER, READY

RENDER_S = 10.0
START_S = 60.0
SCRIPT = Path(__file__).with_name("template_process.py")

log = get_logger("models")


class Renderer:
    """Talks to the child, one request at a time."""

    def __init__(self, render_s: float = RENDER_S):
        self._render_s = render_s
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def render(self, template: str, messages: list[dict[str, Any]], **values: Any) -> str:
        """The text of a conversation. Raises ``InvalidParameterError`` with what the template says, or where it
        takes too long or too much."""
        request = {"conversations": [messages], "chat_template": template, **values}
        with held(self._lock):
            answer = self._ask(json.dumps(request).encode())
        if "text" in answer:
            return answer["text"]
        raise _refusal(answer["error"])

    def close(self) -> None:
        """End the child, if there is one; the next conversation starts another."""
        child, self._child = self._child, None
        if child is None or child.stdin is None or child.stdout is None:
            return
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()

    def _ask(self, request: bytes) -> dict[str, str]:
        child = self._running()
        try:
            assert child.stdin is not None, "it was made with pipes"
            child.stdin.write(HEADER.pack(len(request)) + request)
            child.stdin.flush()
            size = HEADER.unpack(self._read(child, HEADER.size, until_s := time.monotonic() + self._render_s))[0]
            answer: dict[str, str] = json.loads(self._read(child, size, until_s))
        except _SlowError:
            self.close()
            left_s()
            log.warning("chat_template_killed", seconds=self._render_s)
            raise _refusal(f"it takes longer than {self._render_s:.0f} s") from None
        except (OSError, EOFError):
            self.close()
            raise _refusal("it takes too much memory") from None
        except BaseException:
            self.close()
            raise
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        """The child, ready for a request."""
        if self._child is not None and self._child.poll() is None:
            return self._child
        self.close()
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-P", str(SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            if self._read(self._child, len(READY), time.monotonic() + START_S) == READY:
                return self._child
        except (OSError, EOFError):
            log.exception("chat_templates_cannot_be_rendered")
        except _SlowError:
            self.close()
            raise too_late() from None
        self.close()
        raise OverloadedError("chat templates cannot be rendered at the moment")

    def _read(self, child: subprocess.Popen[bytes], size: int, until_s: float) -> bytes:
        """So many bytes of its answer. Raises ``_SlowError``, or ``EOFError`` where it has died."""
        assert child.stdout is not None, "it was made with pipes"
        poller = select.poll()
        poller.register(child.stdout, select.POLLIN)
        data = bytearray()
        until_s = min(until_s, time.monotonic() + left_s())
        while len(data) < size:
            if not poller.poll(max(until_s - time.monotonic(), 0) * 1000):
                raise _SlowError
            part = os.read(child.stdout.fileno(), size - len(data))
            if not part:
                raise EOFError
            data += part
        return bytes(data)


class _SlowError(Exception):
    """The child has not answered in time."""


def _refusal(message: str) -> InvalidParameterError:
    return InvalidParameterError(f"the chat template refuses these messages: {message}")


RENDERER = Renderer()
atexit.register(RENDERER.close)
