"""What a model writes is a stranger's: calls in Hermes' form, and what only looks like one, whole and in pieces."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.parsing.tool_calls.answer_reader import AnswerForm
from app.core.parsing.tool_calls.choosing import CALL_FORMS, REASONING_FORMS
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.http.answers.chat_parts import PartStream, message_of
from tests.thinned import as_slow
from tests.unit.models.call_notations import NOTATIONS, TOOLS, completions, each_notation

FORM = AnswerForm(CALL_FORMS["hermes"])


def split_calls(text, form=FORM):
    message = message_of(text, form)
    return message["content"] or "", message.get("tool_calls", [])


CALL = '<tool_call>\n{"name": "f", "arguments": {"city": "Köln"}}\n</tool_call>'


def functions(calls):
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]


def test_text_and_calls_are_told_apart():
    text, calls = split_calls(f"Let me see.\n{CALL}\n{CALL}")
    assert text == "Let me see."
    assert functions(calls) == [("f", {"city": "Köln"})] * 2
    assert len({call["id"] for call in calls}) == 2


def test_a_completion_that_is_only_a_call_has_no_text():
    text, calls = split_calls(CALL)
    assert text == "" and len(calls) == 1


@pytest.mark.parametrize("inside", ["", "{", "[]", "5", '{"name": 5}', '{"name": "f", "arguments": "x"}', "[" * 5000])
def test_what_is_no_call_stays_text(inside):
    whole = f"a <tool_call>{inside}</tool_call> b"
    assert split_calls(whole) == (whole, [])


def test_a_call_that_was_cut_off_before_its_name_is_known_stays_text():
    assert split_calls(CALL[:22]) == (CALL[:22], [])


def test_a_call_that_was_cut_off_behind_its_name_is_a_call():
    text, [call] = split_calls(CALL[:30])
    assert text == "" and call["function"] == {"name": "f", "arguments": ""}


def test_a_call_may_lack_its_closing_tag_and_its_arguments():
    assert functions(split_calls('<tool_call>{"name": "f"}')[1]) == [("f", {})]


def call_of(arguments: str, name: str = "f") -> str:
    return f'<tool_call>{{"name": "{name}", "arguments": {arguments}}}</tool_call>'


HOSTILE = [
    "The <tool_call> tag starts a call.\n" + CALL,
    "Write <tool_call>{ and so on. " + CALL + " Done.",
    call_of('{"a": "x\\ud83d"}'),
    call_of('{"a": "</tool_call>", "b": "<tool_call>{"}') + " tail \n",
    call_of("{}") + "\n" + call_of("{}", "g") + "\n",
    "<tool_call>" + '{"name": "f"}' + "\n" + '{"name": "g"}' + "</tool_call>",
    "<tool_call>{<tool_call>[<tool_call>" + CALL,
    call_of('{"a": "b"}')[:-15] + " and text",
    "  \n" + CALL + " b \n",
    "no call at all \n ",
]


def streamed(whole, sizes, form=FORM):
    parts, at, text, calls, deltas = PartStream(form), 0, "", [], []
    while at < len(whole):
        size = sizes()
        deltas += parts.push(whole[at : at + size], is_last=False)
        at += size
    for delta in deltas + parts.push("", is_last=True):
        text += delta.get("content", "")
        for call in delta.get("tool_calls", []):
            if "id" in call:
                calls.append(dict(call["function"]))
            else:
                calls[call["index"]]["arguments"] += call["function"]["arguments"]
    return text, calls


@given(st.sampled_from(["x" + CALL, "a < b <tool", "<tool_call>no", CALL + CALL, "a\n\n" + CALL, *HOSTILE]), st.data())
def test_pieces_bring_the_same_text_and_calls_as_the_whole(whole, data):
    text, calls = streamed(whole, lambda: data.draw(st.integers(1, 9)))
    expected_text, expected = split_calls(whole)
    assert calls == [call["function"] for call in expected]
    assert text == expected_text


SIGNS = "".join(sorted({sign for form in CALL_FORMS.values() for mark in form.signs for sign in mark}))


@given(st.sampled_from(sorted(NOTATIONS)), st.data())
def test_whatever_stands_in_the_middle_of_a_call_no_form_fails_and_pieces_bring_the_whole(notation, data):
    form = AnswerForm(CALL_FORMS[NOTATIONS[notation][0]], None, KnownTools(TOOLS))
    text = NOTATIONS[notation][1](data.draw(st.sampled_from(completions())))
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    text = text[:start] + data.draw(st.text(SIGNS + "{}[]\",:'0aTN\\ \n", max_size=12)) + text[end:]
    shown, calls = split_calls(text, form)
    size = data.draw(st.integers(1, 40))
    assert streamed(text, lambda: size, form) == (shown, [call["function"] for call in calls])


@given(st.text('{}[]",:<tool_call>/\\ 0aeNu\n', max_size=80))
def test_whatever_a_model_writes_comes_out_as_text_or_as_calls(text):
    shown, calls = split_calls(text)
    assert calls or shown == text


def strictly(text: str) -> object:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text.encode("utf-8"), parse_constant=refuse)


def arguments_of(whole: str) -> str:
    [call] = split_calls(whole)[1]
    return call["function"]["arguments"]


def test_text_that_names_the_tag_hides_no_call():
    text, calls = split_calls(f"The <tool_call> tag starts a call. {CALL}")
    assert text == "The <tool_call> tag starts a call."
    assert functions(calls) == [("f", {"city": "Köln"})]


def test_text_behind_a_tag_that_is_no_call_goes_out_at_once():
    parts = PartStream(FORM)
    assert parts.push("see <tool_call> in", is_last=False) == [{"content": "see <tool_call> in"}]
    assert parts.push(" and <tool_call>{no", is_last=False) == [{"content": " and <tool_call>{no"}]


def test_tags_inside_strings_are_part_of_the_arguments():
    text, calls = split_calls(call_of('{"a": "</tool_call>", "b": "<tool_call>{"}'))
    assert (text, functions(calls)) == ("", [("f", {"a": "</tool_call>", "b": "<tool_call>{"})])


@pytest.mark.parametrize(
    "inside",
    [
        '{"name": "f", "parameters": {"a": 1}}',
        '{"name": "f", "arguments": "{\\"a\\": 1}"}',
        '{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}',
    ],
)
def test_arguments_under_other_names_and_as_text_are_found(inside):
    assert functions(split_calls(f"<tool_call>{inside}</tool_call>")[1]) == [("f", {"a": 1})]


def test_half_a_surrogate_pair_stays_an_escape():
    arguments = arguments_of(call_of('{"a": "x\\ud83d", "b": "\\ud83d\\ude00"}'))
    assert arguments == '{"a": "x\\ud83d", "b": "\\ud83d\\ude00"}'
    [call] = split_calls(call_of("{}", "f\\ud83d"))[1]
    assert call["function"]["name"] == "f\ufffd"


def test_numbers_stay_as_they_were_written():
    assert arguments_of(call_of('{"a": [12345678901234567.89, 1E999, -0.10]}')) == (
        '{"a": [12345678901234567.89, 1E999, -0.10]}'
    )
    assert arguments_of(call_of('{"a": ' + "7" * 900 + "}")) == '{"a": ' + "7" * 900 + "}"


def test_what_json_has_not_comes_out_as_json():
    arguments = arguments_of(call_of('{"a": NaN, "b": [-Infinity], "c": "x\ny", "d": 1, "d": 2}'))
    assert arguments == '{"a": null, "b": [null], "c": "x\\ny", "d": 1, "d": 2}'
    assert strictly(arguments)


@pytest.mark.parametrize("depth", [100, 100_000])
def test_arguments_as_text_that_are_nested_without_end_are_text(depth):
    whole = call_of('"' + '{\\"a\\":' * depth + "1" + "}" * depth + '"')
    assert split_calls(whole) == (whole, [])


def test_a_call_that_stops_being_json_ends_there_and_the_rest_is_text():
    text, [call] = split_calls('<tool_call>{"name": "f", "arguments": {"a": 1, oh no}}</tool_call> so')
    assert call["function"] == {"name": "f", "arguments": '{"a": 1, '}
    assert text == "oh no}}</tool_call> so"


@pytest.mark.parametrize("depth", [100, as_slow(20_000)])
@pytest.mark.parametrize("notation", sorted(NOTATIONS))
def test_nesting_is_bounded_in_every_form(notation, depth):
    form = AnswerForm(CALL_FORMS[NOTATIONS[notation][0]], None, KnownTools(TOOLS))
    text = NOTATIONS[notation][1]([[("get_weather", {"place": {"a": "DEEP"}})]])
    quote = next(one for one in ('<|"|>DEEP<|"|>', "<escape>DEEP<escape>", '"DEEP"', "'DEEP'") if one in text)
    for brackets in ("[" * depth, '{"a":' * depth, "{a:" * depth):
        for call in split_calls(text.replace(quote, brackets), form)[1]:
            source = call["function"]["arguments"]
            # A bare value that is no JSON is a string.
            assert source.count("[") < 70 or '"place": "' in source


def test_a_bare_object_is_a_call_only_where_it_names_a_function_of_the_request():
    form = AnswerForm(CALL_FORMS["llama_json"], None, KnownTools(TOOLS))
    for text in ('{"city": "Bonn"}', '{"name": "Ann", "parameters": {}}', 'so {"name": "f", "parameters": {}}'):
        assert split_calls(text, form) == (text, [])
    assert split_calls('so\n{"name": "f", "parameters": {}}', form)[1][0]["function"]["name"] == "f"


def test_a_bare_list_is_a_call_only_where_it_names_a_function_of_the_request():
    form = AnswerForm(CALL_FORMS["llama_python"], None, KnownTools(TOOLS))
    for text in ("[1, 2]", "[g(a=1)]", "[f]", "see [f(a=1)]"):
        assert split_calls(text, form) == (text, [])


def test_arguments_without_names_take_those_of_the_schema():
    form = AnswerForm(CALL_FORMS["lfm2"], None, KnownTools(TOOLS))
    [call] = split_calls("<|tool_call_start|>[f('Bonn', 'x', days=2)]<|tool_call_end|>", form)[1]
    assert json.loads(call["function"]["arguments"]) == {"city": "Bonn", "note": "x", "days": 2}


def test_python_escapes_become_json():
    form = AnswerForm(CALL_FORMS["lfm2"], None, KnownTools(TOOLS))
    source = r"'\x41\u00e9\U0001f600\'\d\ud83d'"
    [call] = split_calls(f"<|tool_call_start|>f(city={source})<|tool_call_end|>", form)[1]
    assert json.loads(call["function"]["arguments"]) == {"city": "A\u00e9\U0001f600'\\d\ud83d"}


def test_a_mistral_call_has_an_id_that_its_template_takes():
    form = AnswerForm(CALL_FORMS["mistral"], None, KnownTools(TOOLS))
    [call] = split_calls("[TOOL_CALLS]f[ARGS]{}", form)[1]
    assert len(call["id"]) == 9 and call["id"].isalnum()


def test_values_between_tags_are_of_the_types_that_references_and_choices_name():
    parameters = {
        "$defs": {"City": {"enum": ["12", "Köln"]}, "Count": {"anyOf": [{"type": "integer"}, {"type": "null"}]}},
        "properties": {
            "city": {"$ref": "#/$defs/City"},
            "count": {"allOf": [{"$ref": "#/$defs/Count"}]},
            "note": {"const": "7"},
            "loop": {"$ref": "#/properties/loop"},
        },
    }
    tools = KnownTools([{"type": "function", "function": {"name": "f", "parameters": parameters}}])
    assert tools.types("f", "city") == tools.types("f", "note") == {"string"}
    assert tools.types("f", "count") == {"number", "null"} and tools.types("f", "loop") == set()
    text = "".join(
        f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in [("city", "12"), ("count", "3"), ("note", "7")]
    )
    form = AnswerForm(CALL_FORMS["qwen_coder"], None, tools)
    [call] = split_calls(f"<tool_call>\n<function=f>\n{text}</function>\n</tool_call>", form)[1]
    assert json.loads(call["function"]["arguments"]) == {"city": "12", "count": 3, "note": "7"}


@pytest.mark.parametrize("value", [{"a": ["</parameter>", "</arg_value>"]}, ["\n</parameter>\n</function>"]])
@pytest.mark.parametrize("notation", ["qwen_coder", "glm", "glm_4_7"])
def test_a_closing_tag_in_a_string_of_an_object_does_not_end_its_value(notation, value):
    text = NOTATIONS[notation][1]([[("f", {"place": value}), ("f", {"days": 1})]])
    place = {"type": ["object", "array"]}
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"place": place}}}}]
    form = AnswerForm(CALL_FORMS[NOTATIONS[notation][0]], None, KnownTools(tools))
    assert functions(split_calls(text, form)[1]) == [("f", {"place": value}), ("f", {"days": 1})]


# The start of an answer that the prompt holds, what the model goes on with, and what the answer is then.
CONTINUED = [
    ("Let me", " look.\n" + CALL, "look.", [("f", {"city": "Köln"})]),
    ("Let me look.\n" + CALL[:-30], CALL[-30:], "", [("f", {"city": "Köln"})]),
    ("Hm.\n<tool_c", "all>" + CALL.removeprefix("<tool_call>") + "\nDone.", "Done.", [("f", {"city": "Köln"})]),
    ('<tool_call>\n{"na', 'me": "f"}\n</tool_call>', "", [("f", {})]),
    (CALL + "\nAnd", " more: " + CALL, "more:", [("f", {"city": "Köln"})]),
    ("A <tool_c", "ounter> stands.", "ounter> stands.", []),
    ("One. ", "Two.", "Two.", []),
]


@pytest.mark.parametrize(("start", "text", "content", "calls"), CONTINUED)
def test_a_call_that_begins_in_the_start_of_the_answer_is_the_answers(start, text, content, calls):
    form = AnswerForm(CALL_FORMS["hermes"], given=start)
    whole = message_of(text, form)
    assert (whole["content"] or "").strip() == content and functions(whole.get("tool_calls", [])) == calls
    for cut in range(len(text)):
        stream = PartStream(form)
        deltas = stream.push(text[:cut], is_last=False) + stream.push(text[cut:], is_last=True)
        assert "".join(delta.get("content", "") for delta in deltas) == (whole["content"] or "")
        pieces = [call["function"] for delta in deltas for call in delta.get("tool_calls", [])]
        assert [piece["name"] for piece in pieces if "name" in piece] == [name for name, _ in calls]
        assert "".join(piece["arguments"] for piece in pieces) == "".join(
            call["function"]["arguments"] for call in whole.get("tool_calls", [])
        )


@pytest.mark.parametrize("notation", each_notation(sorted(NOTATIONS.keys() - {"harmony", "harmony_by_role"})))
def test_in_every_notation_a_call_goes_on_wherever_the_start_of_the_answer_ends(notation):
    name, write = NOTATIONS[notation]
    text = write([[("get_weather", {"city": "Köln", "days": 3})]])
    for cut in range(1, len(text)):
        form = AnswerForm(CALL_FORMS[name], None, KnownTools(TOOLS), given=text[:cut])
        message = message_of(text[cut:], form)
        calls = functions(message.get("tool_calls", []))
        assert calls == [("get_weather", {"city": "Köln", "days": 3})] or (
            # The start holds the call whole: it is none of the answer's.
            calls == [] and cut > text.rindex("3")
        ), text[:cut]
        assert not message["content"] or cut > text.rindex("3")


def test_kimis_calls_keep_the_ids_that_the_model_gives_them_and_no_two_are_alike():
    call = "<|tool_call_begin|>{}<|tool_call_argument_begin|>{}<|tool_call_end|>"
    ids = ["functions.search:0", "functions.a.b-c:12", "f", "functions.search:0", "no name:1"]
    text = "<|tool_calls_section_begin|>" + "".join(call.format(one, "{}") for one in ids)
    message = message_of(text, AnswerForm(CALL_FORMS["kimi"], None, KnownTools(TOOLS)))
    found = [(one["id"], one["function"]["name"]) for one in message["tool_calls"]]
    assert found[:3] == list(zip(ids[:3], ["search", "a.b-c", "f"], strict=True))
    assert found[3][0].startswith("call_") and found[3][1] == "search" and len(found) == 4


def test_reasoning_ends_where_a_call_begins_whose_sign_no_thought_spells_out():
    text = "<think>I call it.<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{}"
    message = message_of(text, AnswerForm(CALL_FORMS["kimi"], REASONING_FORMS["think"]))
    assert message["reasoning_content"] == "I call it." and functions(message["tool_calls"]) == [("f", {})]


def test_values_that_are_no_strings_may_be_written_as_python_writes_them():
    properties = {"a": {"type": "array"}, "b": {"type": "object"}, "c": {"type": ["string", "array"]}, "d": {}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"properties": properties}}}]
    values = {"a": "['x', None, True]", "b": "{'k': (1, 2)}", "c": "['x']", "d": "['x']"}
    parameters = "".join(f"<parameter={key}>{value}</parameter>" for key, value in values.items())
    text = f"<seed:tool_call><function=f>{parameters}</function></seed:tool_call>"
    message = message_of(text, AnswerForm(CALL_FORMS["seed_oss"], None, KnownTools(tools)))
    expected = {"a": ["x", None, True], "b": {"k": [1, 2]}, "c": "['x']", "d": "['x']"}
    assert functions(message["tool_calls"]) == [("f", expected)]


def test_a_dsml_value_is_a_string_where_its_tag_says_so():
    values = [("days", "true", "3"), ("factor", "false", "1.5"), ("city", "false", "Köln"), ("tags", "false", '["a"]')]
    parameters = "".join(
        f'<｜DSML｜parameter name="{key}" string="{is_text}">{value}</｜DSML｜parameter>'
        for key, is_text, value in values
    )
    text = f'<｜DSML｜invoke name="search">{parameters}</｜DSML｜invoke>'
    message = message_of(text, AnswerForm(CALL_FORMS["dsml"], None, KnownTools(TOOLS)))
    expected = {"days": "3", "factor": 1.5, "city": "Köln", "tags": ["a"]}
    assert functions(message["tool_calls"]) == [("search", expected)]


def test_a_dsml_call_may_hold_its_arguments_as_one_object():
    text = '<｜DSML｜function_calls><｜DSML｜invoke name="f">\n{"a": "}"}\n</｜DSML｜invoke></｜DSML｜function_calls>'
    assert functions(message_of(text, AnswerForm(CALL_FORMS["dsml"]))["tool_calls"]) == [("f", {"a": "}"})]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("phi", "from functools import reduce; functools[0] and functools.cache"),
        ("xlam", 'A list: [{"name": "x"}] and\n[{"name": "unknown", "arguments": {}}]'),
        ("internlm", "<|action_start|><|interpreter|>\nprint(1)<|action_end|>"),
        ("apertus", '<|tools_prefix|>["a", {"f": 1}]<|tools_suffix|>'),
        ("minimax", "<minimax:tool_call> and <invoke name='f'>"),
        ("dsml", "<｜DSML｜invoke names='f'>"),
        ("kimi", "<|tool_call_begin|>two words<|tool_call_argument_begin|>{}"),
        ("olmo", "<function_calls> are written like f (a=1)"),
        ("jamba", "<tool_calls>none</tool_calls>"),
    ],
)
def test_what_only_looks_like_a_call_is_content(name, text):
    form = AnswerForm(CALL_FORMS[name], None, KnownTools(TOOLS))
    assert message_of(text, form)["content"] == text and "tool_calls" not in message_of(text, form)
