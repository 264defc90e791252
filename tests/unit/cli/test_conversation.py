"""``forklift complete`` and ``forklift chat``: texts as they come, one line for what the server refuses."""

from __future__ import annotations

import json

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


THINKER = {"id": "m", "task": "generate", "reasoning": "think", "defaults": {"temperature": 0.5, "top_k": 7}}


@pytest.fixture
def thinker(double):
    """A server whose model thinks and calls."""
    double.behave, double.pages = "apart", {"/v1/capabilities": {"object": "list", "data": [THINKER]}}
    return double


def test_calls_are_shown_and_what_comes_next_is_their_result(thinker, forklift, tmp_path):
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    (tmp_path / "tools.json").write_text(json.dumps(tools))
    options = ["--tools", str(tmp_path / "tools.json"), "--system", "be brief", "--max-new-tokens", "9", "--stats"]
    result = forklift("chat", "--url", thinker.url, *options, text="how many?\nfive\n")
    assert result.exit_code == 0
    assert result.stdout == '\nlook {"at": "x\x1b"}\nIt is 5.\n'
    assert result.stderr.count(" tokens, first after ") == 2
    (path, first), (_, second) = thinker.seen
    assert path == "/v1/chat/completions" and first["tools"] == tools
    assert (first["max_tokens"], first["temperature"], first["top_k"]) == (9, 0.5, 7)
    said = [(one["role"], one.get("content")) for one in second["messages"]]
    assert said == [("system", "be brief"), ("user", "how many?"), ("assistant", ""), ("tool", "five")]
    assert second["messages"][2]["tool_calls"][0]["id"] == second["messages"][3]["tool_call_id"] == "c1"


@pytest.mark.parametrize(("flags", "told"), [((), ""), (("--reasoning",), "Hm. I look.")])
def test_reasoning_stays_out_of_a_pipe(thinker, forklift, flags, told):
    result = forklift("chat", "--url", thinker.url, *flags, text="how many?\n")
    assert "Hm." not in result.stdout and result.stderr == told


def test_in_a_terminal_reasoning_is_dim_and_a_call_asks_for_its_result(thinker):
    with terminal("chat", "--url", thinker.url) as screen:
        screen.read_until(b"> ")
        screen.type(b"how many?\n")
        shown = screen.read_until(b"look gives> ")
        assert b"\x1b[2mHm. I look.\x1b[0m" in shown and b'look {"at": "x\\x1b"}' in shown
        screen.type(b"five\n")
        screen.read_until(b"It is 5.")
        screen.type(b"/quit\n")
        assert screen.wait() == 0


@pytest.mark.parametrize("written", ["{}", "[1]", "no json"])
def test_a_file_that_holds_no_tools_is_wrong_usage(forklift, tmp_path, written):
    (tmp_path / "tools.json").write_text(written)
    result = forklift("chat", "--tools", str(tmp_path / "tools.json"), text="x\n")
    assert result.exit_code == 2 and "tools.json" in result.stderr
