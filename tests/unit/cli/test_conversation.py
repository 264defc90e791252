"""``forklift complete`` and ``forklift chat``: texts as they come, one line for what the server refuses."""

from __future__ import annotations

import pytest

from app.cli.sampling_flags import OPTIONS
from app.http.schemas.native_bodies import ChatBody, CompleteBody
from tests.unit.cli.terminal import CTRL_C, terminal


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
    with terminal("chat", "--url", double.url) as screen:
        screen.read_until(b"> ")
        screen.type(b"hello\n")
        screen.read_until(b"drip drip")
        screen.type(CTRL_C)
        screen.read_until(b"[stopped]")
        assert double.left.wait(20)
        screen.type(b"/quit\n")
        assert screen.wait() == 0


@pytest.mark.parametrize("command", ["complete", "chat"])
def test_a_server_that_is_not_there_is_one_line(forklift, command):
    result = forklift(command, "--url", "http://127.0.0.1:1", text="x\n")
    assert result.exit_code == 1
    assert result.stderr == "forklift: http://127.0.0.1:1: Connection refused\n"
