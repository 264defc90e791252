"""The playground in a real browser: what a user clicks is what the server is asked."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

from app.core.errors import OverloadedError
from app.http.application.factory import create_app
from app.http.description.operations import OPERATIONS
from tests.contract.describing import RoomyModel
from tests.contract.doubles import World
from tests.contract.loopback import serving
from tests.contract.real import RealWorld

pytestmark = pytest.mark.slow  # a browser and a real server

NEEDS_CURL = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
MARKUP = "<img src=x onerror='document.title=1'>"


@pytest.fixture
def tab(open_tab):
    tab = open_tab()
    tab.page.wait_for_selector("#tabs button")
    return tab


def choose(tab, title):
    tab.page.get_by_role("tab", name=title).click()


def run(tab):
    tab.page.click("#run")
    tab.page.locator("#timings", has_text="ended by").wait_for()


def say(tab, question):
    if tab.page.get_attribute("#tab-chat", "aria-selected") != "true":
        choose(tab, "Chat")
    tab.page.fill("#question", question)
    run(tab)


def said(tab):
    """The texts of the conversation, without their buttons."""
    return tab.page.locator("#conversation .text").all_inner_texts()


def output(tab):
    return tab.page.inner_text("#output")


def test_a_completion_is_streamed_behind_its_prompt(tab, world):
    tab.page.fill("#prompt", "def f(")
    tab.page.fill("#parameter-temperature", "0.5")
    run(tab)
    assert output(tab) == "def f(Hello,\nworld"
    assert tab.page.inner_text("#output .made") == "Hello,\nworld"
    assert re.match(r"queue [\d.]+ ms · first token [\d.]+ ms · total", tab.page.inner_text("#timings"))
    assert world.inference.jobs[0].params.temperature == 0.5
    tab.assert_clean()


def test_what_the_model_writes_is_never_markup(tab, world):
    world.inference.script = [MARKUP]
    for title in ("Complete", "Infill"):
        choose(tab, title)
        run(tab)
        assert MARKUP in tab.page.inner_text("#output")
    say(tab, "hello")
    tab.page.wait_for_selector("#conversation .markdown")
    assert MARKUP in tab.page.inner_text("#conversation")
    assert tab.page.query_selector("main img") is None
    tab.assert_clean()


def test_probabilities_colour_the_tokens_and_show_their_rivals(tab, world):
    world.inference.script = list("Hi")
    tab.page.check("#logprobs")
    run(tab)
    tokens = tab.page.query_selector_all("#output .token")
    assert [token.inner_text() for token in tokens] == ["H", "i"]
    assert all("hsl" in token.get_attribute("style") or "rgb" in token.get_attribute("style") for token in tokens)
    tokens[0].hover()
    assert tab.page.locator("#rivals tr").count() == 2
    tab.assert_clean()


@pytest.mark.parametrize("is_streamed", [True, False])
def test_tokens_that_lag_behind_the_text_or_have_none_leave_it_as_it_is(tab, world, is_streamed):
    world.inference.script = ["a\u4f60b", 0.05, "c", 0.05, "\0"]
    tab.page.set_checked("#stream", is_streamed)
    tab.page.fill("#parameter-stop", "zz")
    tab.page.check("#logprobs")
    run(tab)
    assert tab.page.inner_text("#output .made").replace("◼", "").rstrip("\0") == "a\u4f60bc"


@pytest.mark.parametrize("is_streamed", [True, False])
def test_the_hole_is_filled_inside_the_code(tab, is_streamed):
    choose(tab, "Infill")
    tab.page.set_checked("#stream", is_streamed)
    tab.page.fill("#code", "a = <HOLE>\nb")
    assert output(tab) == "a = …\nb"
    run(tab)
    assert output(tab) == "a = Hello,\nworld\nb"
    assert tab.page.inner_text("#output .made") == "Hello,\nworld"


def test_several_holes_are_filled_without_a_stream(tab):
    choose(tab, "Infill")
    tab.page.fill("#code", "a<HOLE>b<HOLE>c")
    run(tab)
    assert output(tab) == "aHello,\nworldbHello,\nworldc"


def test_a_conversation_goes_on_with_its_history(tab, world):
    for question in ("first", "second"):
        say(tab, question)
    told = [message["content"] for message in world.model.encoded[-1]]
    assert told == ["first", "Hello,\nworld", "second"]
    assert tab.page.locator("#conversation .message").count() == 4
    tab.page.click("#clear")
    assert tab.page.locator("#conversation .message").count() == 0


def test_enter_sends_and_shift_enter_makes_a_line(tab, world):
    choose(tab, "Chat")
    tab.page.click("#question")
    tab.page.keyboard.type("one")
    tab.page.keyboard.press("Shift+Enter")
    tab.page.keyboard.type("two")
    tab.page.keyboard.press("Enter")
    tab.page.locator("#timings", has_text="ended by").wait_for()
    assert [message["content"] for message in world.model.encoded[-1]] == ["one\ntwo"]
    assert tab.page.input_value("#question") == ""


def test_a_conversation_outlasts_the_page_and_is_shown_as_markdown(tab, world):
    world.inference.script = ["# Title\n\n", "a **bold** word\n\n```py\nx = 1\n```\n", "| a |\n|--:|\n| 1 |\n"]
    say(tab, "hello")
    tab.page.wait_for_selector("#conversation .markdown pre")
    tab.page.reload()
    tab.page.wait_for_selector("#conversation .markdown pre")
    assert tab.page.get_attribute("#tab-chat", "aria-selected") == "true"
    assert tab.page.inner_text("#conversation strong") == "bold"
    assert tab.page.inner_text("#conversation pre").strip() == "x = 1"
    assert tab.page.locator("#conversation").get_by_role("button", name="Copy code").count() == 1
    say(tab, "again")
    assert [message["role"] for message in world.model.encoded[-1]] == ["user", "assistant", "user"]
    tab.assert_clean()


def test_an_answer_that_was_stopped_stays_in_the_conversation(tab, world):
    world.inference.script = ["Hel", *[0.05] * 400]
    choose(tab, "Chat")
    tab.page.fill("#question", "hello")
    tab.page.click("#run")
    tab.page.locator("#conversation .assistant", has_text="Hel").wait_for()
    tab.page.click("#stop")
    tab.page.wait_for_selector("#run:enabled")
    tab.page.reload()
    tab.page.wait_for_selector("#conversation .assistant")
    assert said(tab) == ["hello", "Hel"]
    assert "stopped" in tab.page.inner_text("#conversation .assistant")


def test_a_question_without_an_answer_comes_back(tab, world):
    world.inference.refuse_with = OverloadedError("too much", retry_after_s=7)
    choose(tab, "Chat")
    tab.page.fill("#question", "hello")
    tab.page.click("#run")
    tab.page.wait_for_selector("#error:visible")
    assert said(tab) == [] and tab.page.input_value("#question") == "hello"


def test_a_question_is_asked_again_in_other_words(tab, world):
    say(tab, "first")
    say(tab, "second")
    tab.page.locator("#conversation").get_by_role("button", name="Edit").first.click()
    tab.page.fill("#conversation textarea", "third")
    tab.page.get_by_role("button", name="Send again").click()
    tab.page.locator("#timings", has_text="ended by").wait_for()
    assert said(tab)[0] == "third" and len(said(tab)) == 2
    assert [message["content"] for message in world.model.encoded[-1]] == ["third"]
    world.inference.script = ["other"]
    tab.page.get_by_role("button", name="Regenerate").click()
    tab.page.locator("#conversation .assistant", has_text="other").wait_for()
    tab.page.wait_for_selector("#run:enabled")
    assert said(tab) == ["third", "other"]


def test_what_cannot_be_asked_again_leaves_the_conversation_as_it_was(tab, world):
    say(tab, "first")
    tab.page.fill("#question", "a draft")
    world.inference.refuse_with = OverloadedError("too much", retry_after_s=7)
    tab.page.get_by_role("button", name="Regenerate").click()
    tab.page.wait_for_selector("#error:visible")
    tab.page.locator("#conversation .markdown").wait_for()
    assert said(tab)[0] == "first" and "Hello" in said(tab)[1]
    assert tab.page.input_value("#question") == "a draft"
    tab.page.reload()
    tab.page.wait_for_selector("#conversation .markdown")
    assert len(said(tab)) == 2


def test_the_system_prompt_and_the_parameters_are_kept(tab, world):
    choose(tab, "Chat")
    tab.page.click("#system-part summary")
    tab.page.fill("#system", "Be brief.")
    tab.page.fill("#parameter-temperature", "0.5")
    tab.page.reload()
    tab.page.wait_for_selector("#tabs button")
    say(tab, "hello")
    assert [message["content"] for message in world.model.encoded[-1]] == ["Be brief.", "hello"]
    assert world.inference.jobs[-1].params.temperature == 0.5


def test_what_is_typed_is_counted(tab, world):
    tab.page.fill("#prompt", "def f(")
    tab.page.locator("#count", has_text="6 tokens").wait_for()
    choose(tab, "Chat")
    tab.page.fill("#question", "hello")
    tab.page.locator("#count", has_text=re.compile(r"^\d+ tokens")).wait_for()
    tab.assert_clean()


def test_tabs_are_reached_by_arrow_keys(tab):
    tab.page.focus("#tab-complete")
    tab.page.keyboard.press("ArrowRight")
    assert tab.page.get_attribute("#tab-infill", "aria-selected") == "true"
    tab.page.keyboard.press("End")
    assert tab.page.evaluate("document.activeElement.id") == "tab-chat"
    assert tab.page.get_attribute("#panel", "aria-labelledby") == "tab-chat"


def test_a_server_that_is_gone_is_told_in_words(tab):
    tab.page.route("**/complete", lambda route: route.abort())
    tab.page.click("#run")
    tab.page.wait_for_selector("#error:visible")
    assert tab.page.inner_text("#error-text") == "The server does not answer. Is it still running?"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_telephone(tab, scheme):
    tab.page.emulate_media(color_scheme=scheme)
    tab.page.set_viewport_size({"width": 390, "height": 800})
    say(tab, "word " * 60 + "x" * 300)
    for title in ("Complete", "Infill", "Chat"):
        choose(tab, title)
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390


@NEEDS_CURL
def test_the_curl_line_asks_the_same(tab, world):
    choose(tab, "Complete")
    tab.page.fill("#prompt", 'it\'s $HOME `x` \\ "q"\n')
    tab.page.uncheck("#stream")
    done = subprocess.run(
        ["bash", "-c", tab.page.inner_text("#curl") + " -s"], capture_output=True, text=True, timeout=30, check=True
    )
    assert json.loads(done.stdout)["completion"] == "Hello,\nworld"
    assert world.model.encoded[-1] == 'it\'s $HOME `x` \\ "q"\n'


def test_a_refusal_is_shown_with_its_code_and_request_id(tab, world):
    world.inference.refuse_with = OverloadedError("too much", retry_after_s=7)
    tab.page.click("#run")
    tab.page.wait_for_selector("#error:visible")
    shown = tab.page.inner_text("#error")
    assert shown.startswith("The server is busy: all its places are taken. Try again in 7 s.")
    assert "503 overloaded: too much" in shown and "request " in shown
    assert tab.page.is_enabled("#run")


def test_a_stream_that_fails_in_the_middle_keeps_its_text_and_says_so(tab, world):
    world.inference.script = ["Hel", 0.2, OverloadedError("gone")]
    tab.page.click("#run")
    tab.page.wait_for_selector("#error:visible")
    assert tab.page.inner_text("#output .made") == "Hel"
    assert "overloaded: gone" in tab.page.inner_text("#error")


def test_stop_ends_the_generation(tab, world):
    world.inference.script = ["Hel", *[0.05] * 400]
    tab.page.click("#run")
    tab.page.locator("#output .made", has_text="Hel").wait_for()
    tab.page.click("#stop")
    tab.page.wait_for_selector("#run:enabled")
    assert not tab.page.is_visible("#error")


def test_a_key_can_be_typed_in(open_tab):
    world = World(model=RoomyModel(), api_keys="secret")
    with serving(create_app(world.context)) as url:
        tab = open_tab("/", url)
        tab.page.wait_for_selector("#error:visible")
        assert "API key" in tab.page.inner_text("#about")
        tab.page.fill("#key", "secret")
        tab.page.press("#key", "Tab")
        tab.page.wait_for_selector("#tabs button")
        run(tab)
        assert "secret" not in tab.page.inner_text("#curl")
    world.inference.stop()


def test_only_what_the_model_does_is_offered(open_tab, tab, world, model_folder):
    assert tab.page.locator("#tabs button").all_inner_texts() == ["Complete", "Infill", "Chat"]
    world.model.has_infill = world.model.has_chat_template = False
    tab.page.reload()
    tab.page.wait_for_selector("#tabs button")
    assert tab.page.locator("#tabs button").all_inner_texts() == ["Complete"]
    bert = RealWorld(model_folder("bert"))
    with serving(create_app(bert.context)) as url:
        other = open_tab("/", url)
        other.page.wait_for_selector("#tabs button")
        assert other.page.locator("#tabs button").all_inner_texts() == ["Fill mask"]
        other.page.fill("#field-text", "a [MASK] b [MASK]")
        other.page.click("#run")
        other.page.wait_for_selector("#result tr")
        assert other.page.locator("#result table").count() == 2
        other.assert_clean()
    bert.stop()


@pytest.fixture(scope="module")
def every_task(model_folder, tmp_path_factory):
    """A server with a model for each task."""
    folders = {task: model_folder(f"bert-{task}") for task in ("classify", "zero-shot", "entities", "answer", "rerank")}
    folders |= {"fill-mask": model_folder("bert"), "embeddings": model_folder("sentence")}
    folders |= {"generate": model_folder("llama"), "seq2seq": model_folder("t5")}
    file = tmp_path_factory.mktemp("models") / "models.toml"
    file.write_text("".join(f'["of-{task}"]\npath = "{folder}"\n' for task, folder in folders.items()))
    world = RealWorld(models=file)
    yield world
    world.stop()


def test_every_task_has_a_tab_that_shows_its_answers(open_tab, every_task):
    shown = {
        "classify": ["Classify"],
        "zero-shot": ["Zero-shot"],
        "entities": ["Entities"],
        "answer": ["Answer"],
        "rerank": ["Rerank"],
        "fill-mask": ["Fill mask"],
        "embeddings": ["Embeddings"],
        "seq2seq": ["Translate", "Summarize"],
    }
    with serving(create_app(every_task.context)) as url:
        tab = open_tab("/", url)
        tab.page.wait_for_selector("#tabs button")
        for task, titles in shown.items():
            tab.page.select_option("#models", f"of-{task}")
            for title in titles:
                choose(tab, title)
                if task == "seq2seq":
                    tab.page.fill("#field-text", "short")
                if title == "Translate":
                    tab.page.fill("#field-src_lang", "en")
                    tab.page.fill("#field-tgt_lang", "de")
                tab.page.click("#run")
                tab.page.wait_for_selector("#result:visible, #error:visible")
                assert not tab.page.is_visible("#error"), (title, tab.page.inner_text("#error"))
                assert tab.page.inner_text("#result").strip() or title in ("Translate", "Summarize")
                assert f'"model":"of-{task}"' in tab.page.inner_text("#curl")
        tab.assert_clean()


@NEEDS_CURL
def test_the_description_is_shown_with_fields_and_curl_lines(open_tab, world):
    tab = open_tab("/docs")
    tab.page.wait_for_selector("details")
    assert tab.page.locator("details").count() == len(OPERATIONS)
    tab.page.click("#post_complete summary")
    shown = tab.page.inner_text("#post_complete")
    assert "Nucleus sampling; 1 is off." in shown and "number, ≥ 0, ≤ 1" in shown
    line = tab.page.locator("#post_complete pre").first.inner_text()
    done = subprocess.run(["bash", "-c", line + " -s"], capture_output=True, text=True, timeout=30, check=True)
    assert json.loads(done.stdout)["completion"] == "Hello,\nworld"
    tab.assert_clean()
