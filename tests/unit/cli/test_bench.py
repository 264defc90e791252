"""``forklift bench`` measures any OpenAI-style server, and says what failed and how often."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time

import pytest

from app.cli.loadtest import timed_request
from app.cli.loadtest.bodies import Plan, words_for
from app.cli.loadtest.figures import Result, Summary, percentile
from app.cli.loadtest.load_plot import token_rates
from app.cli.loadtest.loops import Load
from app.cli.loadtest.timed_request import Target, send


def body(**more):
    return {"prompt": "a b", "max_tokens": 8, **more}


def sent(double, behave="well", timeout_s=20.0, **more) -> Result:
    double.behave = behave
    return asyncio.run(send(Target(double.url), body(**more), timeout_s))


def test_a_streamed_answer_has_a_first_token_and_pauses_and_the_servers_own_count(double):
    result = sent(double, stream=True)
    assert (result.status, result.error, result.num_tokens, result.prompt_tokens) == (200, None, 8, 11)
    assert len(result.gaps_s) == 3
    assert 0 < result.ttft_s < result.total_s
    assert result.inter_token_s == pytest.approx(sum(result.gaps_s) / 7)


def test_a_stream_that_names_its_end_is_whole_without_a_done(double):
    result = sent(double, "unmarked", stream=True)
    assert (result.error, result.num_tokens) == (None, 8)


def test_a_whole_answer_has_no_first_token(double):
    result = sent(double)
    assert (result.ttft_s, result.inter_token_s, result.num_tokens) == (None, None, 8)


@pytest.mark.parametrize(
    ("behave", "more", "status", "error"),
    [
        ("busy", {}, 503, "overloaded"),
        ("page", {}, 502, "<p>bad gateway"),
        ("early", {"stream": True}, 200, "the stream ended early"),
        ("broken", {"stream": True}, 200, "internal_error"),
        ("mute", {"timeout_s": 0.2}, 0, "no answer in time"),
    ],
)
def test_what_goes_wrong_is_a_result_with_a_reason(double, behave, more, status, error):
    result = sent(double, behave, **more)
    assert (result.status, result.error) == (status, error)
    assert not result.is_ok


def test_a_port_where_nobody_listens_is_a_result_too():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        result = asyncio.run(send(Target(f"http://127.0.0.1:{sock.getsockname()[1]}"), body()))
    assert result.status == 0
    assert "refused" in result.error.lower()


def test_what_is_no_http_is_a_result_too():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        async def talk():
            async def answer(_reader, writer):
                writer.write(b"SSH-2.0-x\r\n\r\n")
                writer.close()

            server = await asyncio.start_server(answer, sock=listener)
            result = await send(Target(f"http://127.0.0.1:{listener.getsockname()[1]}"), body())
            server.close()
            return result

        assert asyncio.run(talk()).error == "the answer is not HTTP/1.1"


def test_a_closed_loop_never_has_more_requests_under_way_than_clients(double):
    others = []

    def bodies():
        for _ in range(12):
            others.append(load.num_running)
            yield body(stream=True)

    load = Load(Target(double.url), bodies())
    assert len(load.closed(3).ok) == 12
    assert max(others) == 2


def test_an_open_loop_sends_every_request(double):
    assert len(Load(Target(double.url), [body() for _ in range(10)]).open(200.0).ok) == 10


def test_a_duration_ends_an_endless_load(double):
    plan = Plan("completions", 4, False, {})
    summary = Load(Target(double.url), plan.bodies(3, None), duration_s=0.3).closed(2)
    assert summary.ok
    assert summary.duration_s >= 0.3


def test_prompts_get_the_length_that_was_asked_for_whatever_the_servers_tokens_are(double):
    plan = Plan("chat", 4, True, {})
    # The double counts 5 + 3 per word.
    assert words_for(Target(double.url, "/v1/chat/completions"), plan, 125, 20) == 40
    [first, second] = plan.bodies(40, 2)
    words = [one["messages"][0]["content"].split() for one in (first, second)]
    assert [len(one) for one in words] == [40, 40]
    assert words[0][0] != words[1][0]
    assert first["stream_options"] == {"include_usage": True}


def test_errors_are_counted_by_status_and_reason():
    results = [Result(200, 1.0, 5), Result(503, 0.1, error="overloaded"), Result(503, 0.1, error="overloaded")]
    summary = Summary(2.0, [*results, Result(0, 1.0, error="no answer in time")])
    assert summary.errors() == {"503: overloaded": 2, "no answer: no answer in time": 1}
    figures = summary.as_dict()
    assert (figures["ok"], figures["failed"], figures["tokens_per_s"], figures["requests_per_s"]) == (1, 3, 2.5, 0.5)
    assert figures["ttft_p50_ms"] is None
    assert figures["total_p99_ms"] == 1000.0


def test_percentiles_are_values_that_were_measured():
    values = [float(i) for i in range(100)]
    assert [percentile(values, share) for share in (50, 95, 99)] == [50.0, 95.0, 99.0]
    assert percentile([], 50) == 0.0


def test_the_rates_over_time_hold_every_token():
    results = [Result(200, 4.0, 40, ttft_s=1.0), Result(200, 2.0, 7, started_s=3.0)]
    width_s, rates = token_rates(Summary(5.0, results))
    assert sum(rate * width_s for rate in rates) == pytest.approx(47)


def test_the_command_writes_a_table_json_and_a_picture(double, forklift, tmp_path):
    figures, picture = tmp_path / "a.json", tmp_path / "a.png"
    options = ["-n", "6", "-c", "2", "--new-tokens", "8", "--json", str(figures), "--plot", str(picture)]
    result = forklift("bench", double.url, "--api-key", "k", *options)
    assert result.exit_code == 0, result.output
    assert "time to first token" in result.output
    found = json.loads(figures.read_text())
    assert found["figures"]["ok"] == 6
    assert len(found["requests"]) == 6
    assert found["model"] == "first"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert set(double.keys) == {"Bearer k"}
    assert {path for path, _ in double.seen} == {"/v1/completions"}


def test_a_server_that_refuses_the_first_request_ends_with_its_reason(double, forklift):
    double.behave = "busy"
    result = forklift("bench", double.url)
    assert result.exit_code == 1
    assert "503: overloaded" in result.output


def test_without_matplotlib_a_picture_is_refused_before_any_load(double, forklift, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = forklift("bench", double.url, "--plot", str(tmp_path / "a.png"))
    assert result.exit_code == 2
    assert "forklift-serve[report]" in result.output
    assert not double.seen


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_a_file_that_cannot_be_written_is_found_out_before_any_load(double, forklift, tmp_path, option):
    result = forklift("bench", double.url, option, str(tmp_path / "gone" / "file"))
    assert result.exit_code == 2
    assert "does not exist" in result.output
    assert not double.seen


@pytest.mark.parametrize("page", [[], {"data": [{}]}, {"data": 1}])
def test_a_list_of_models_that_is_none_ends_with_one_line(double, forklift, page):
    double.pages = {"/v1/models": page}
    result = forklift("bench", double.url)
    assert (result.exit_code, result.output) == (
        1,
        f"forklift: {double.url}/v1/models did not answer a list of models\n",
    )


@pytest.mark.parametrize("options", [["-c", "0"], ["--rate", "0"], ["--duration", "100000"], ["--kind", "x"]])
def test_a_load_without_bounds_is_wrong_usage(forklift, options):
    assert forklift("bench", "http://127.0.0.1:1", *options).exit_code == 2


def test_what_is_no_url_is_wrong_usage(forklift):
    assert forklift("bench", "localhost:5000").exit_code == 2


@pytest.mark.parametrize("num_turns", range(6))
def test_an_end_that_comes_together_with_an_answer_is_not_forgotten(monkeypatch, num_turns):
    """However many turns of the loop lie between the answer and the end."""

    async def goes_on() -> bool:
        answer = asyncio.get_running_loop().create_future()

        async def exchange(*_):
            await asyncio.shield(answer)
            return Result(200, 0.0)

        async def load() -> None:
            await send(target, {})
            await asyncio.sleep(600)

        target = Target("http://127.0.0.1:1", "/", None)
        monkeypatch.setattr(timed_request, "_exchange", exchange)
        loading = asyncio.create_task(load())
        await asyncio.sleep(0.01)
        answer.set_result(None)
        for _ in range(num_turns):
            await asyncio.sleep(0)
        loading.cancel()
        done, _ = await asyncio.wait([loading], timeout=0.5)
        loading.cancel()
        return not done

    assert not asyncio.run(goes_on())


def test_ctrl_c_ends_the_load_and_shows_what_was_measured(double):
    code = "from app.cli.main import main; main()"
    command = [sys.executable, "-c", code, "bench", double.url, "--duration", "60", "-c", "2", "--new-tokens", "4"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        end_s = time.monotonic() + 30
        while len(double.seen) < 10 and time.monotonic() < end_s:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "whole request" in output
