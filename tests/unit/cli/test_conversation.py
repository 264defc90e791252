"""``forklift complete`` and ``forklift chat``: texts as they come, one line for what the server refuses."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time

import pytest

from app.cli.sampling import OPTIONS
from app.http.schemas.native import ChatBody, CompleteBody


def test_every_sampling_flag_is_a_field_of_both_routes():
    for body in (CompleteBody, ChatBody):
        assert set(OPTIONS) | {"stop", "model"} <= set(body.model_fields)


def test_the_completion_of_an_argument_is_written_whole(double, forklift):
    double.behave = "native"
    result = forklift("complete", "def f", "--url", double.url, "--api-key", "k", "--stats", "--echo", "--stop", "x")
    assert result.exit_code == 0
    assert result.stdout == "def fnéw\n\n"
    assert "first after 20 ms, 50.0 tokens/s, stop" in result.stderr
    [(path, sent)] = double.seen
    assert (path, sent) == ("/complete", {"prompt": "def f", "stop": ["x"], "stream": True})
    assert double.keys == ["Bearer k"]


def test_the_prompt_may_come_on_standard_input_and_the_key_by_the_environment(double, forklift):
    double.behave = "native"
    env = {"FORKLIFTCLIENT_URL": double.url, "FORKLIFTCLIENT_API_KEY": "e"}
    result = forklift("complete", "--temperature", "0.5", "--seed", "3", text="line\nzwei ü\n", env=env)
    assert result.exit_code == 0
    assert double.seen[0][1] == {"prompt": "line\nzwei ü\n", "temperature": 0.5, "seed": 3, "stream": True}
    assert double.keys == ["Bearer e"]


def test_what_the_server_refuses_is_one_line_and_exit_code_1(double, forklift):
    double.behave, double.missing = "busy", set()
    result = forklift("chat", "--url", double.url, text="hello\n")
    assert result.exit_code == 1
    assert result.stderr.strip().endswith("answered 503 overloaded: try in 7 s")


def test_rounds_are_sent_along_until_they_are_reset(double, forklift):
    double.behave = "native"
    result = forklift(
        "chat", "--url", double.url, "--system", "be brief", text="one\ntwo\n/reset\nthree\n/quit\nfour\n"
    )
    assert result.exit_code == 0
    sent = [(body["prompt"], body["history"], body["system"]) for _, body in double.seen]
    assert sent == [("one", [], "be brief"), ("two", [["one", "néw\n"]], "be brief"), ("three", [], "be brief")]


def test_ctrl_c_stops_the_answer_and_its_connection_not_the_program(double):
    double.behave = "drip"
    terminal, end = pty.openpty()
    command = [sys.executable, "-c", "from app.cli.main import main; main()", "chat", "--url", double.url]
    process = subprocess.Popen(command, stdin=end, stdout=end, stderr=end, start_new_session=True, preexec_fn=_own_it)
    os.close(end)
    try:
        _read_until(terminal, b"> ")
        os.write(terminal, b"hello\n")
        _read_until(terminal, b"drip drip")
        os.write(terminal, b"\x03")
        _read_until(terminal, b"[stopped]")
        assert double.left.wait(20)
        os.write(terminal, b"/quit\n")
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


def _own_it() -> None:
    """Make the pseudo-terminal the one whose ctrl-C this process gets."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _read_until(terminal: int, wanted: bytes, patience_s: float = 30.0) -> bytes:
    found, end_s = b"", time.monotonic() + patience_s
    while wanted not in found:
        assert select.select([terminal], [], [], max(0.0, end_s - time.monotonic()))[0], found
        found += os.read(terminal, 4096)
    return found


@pytest.mark.parametrize("command", ["complete", "chat"])
def test_a_server_that_is_not_there_is_one_line(forklift, command):
    result = forklift(command, "--url", "http://127.0.0.1:1", text="x\n")
    assert result.exit_code == 1
    assert result.stderr == "forklift: http://127.0.0.1:1: Connection refused\n"
