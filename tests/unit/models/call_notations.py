"""Completions with tool calls in each family's published notation; where each is published stands in its form's module.

A completion is a list of segments: text, or the calls of one block. ``NOTATIONS`` writes them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest

Call = tuple[str, dict[str, Any]]
Segment = str | list[Call]

PROPERTIES = {
    "city": {"type": "string"},
    "note": {"type": "string"},
    "days": {"type": "integer"},
    "factor": {"type": ["number", "null"]},
    "is_new": {"type": "boolean"},
    "tags": {"type": "array", "items": {"type": "string"}},
    "place": {"type": "object"},
}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": PROPERTIES}}}
    for name in ("get_weather", "search", "a.b-c", "f")
]

ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"city": "Köln"},
    {"city": "東京 🗼", "days": 3},
    {"note": 'He said "no" {not} [a] list, it\'s\\fine'},
    {"note": "line one\nline two\ttab", "is_new": True},
    {"place": {"lat": -1.5, "inner": {"deep": [1, {"x": "}"}, []]}, "empty": {}}},
    {"tags": ["a", "b, c", "]", "{"], "factor": None},
    {"note": "</tool_call> <tool_call> [TOOL_CALLS] ```", "days": -12},
    {"city": "", "tags": [], "place": {}},
    {"factor": 1e-05, "is_new": False, "days": 0},
]
# The last word of an argument's value, behind which an unfinished completion is cut.
LAST_WORD = "unfinish"


# Notations that differ from another one of their form in their signs alone.
ALIKE = frozenset(
    [
        "llama_tagged",
        "llama_4_tagged",
        "mistral_with_ids",
        "harmony_by_role",
        "dsml_v4",
        "phi_functools",
        "nemotron",
        "jamba",
        "lfm2_json",
        "glm_4_7",
        "function_gemma",
        "deepseek_v3",
        "phi",
    ]
)


def each_notation(names: Iterable[str]) -> list[Any]:
    """Parameters of a test that takes its time: those that are like others are left to the slow suite."""
    return [pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else []) for name in names]


def completions() -> list[list[Segment]]:
    """Text before, between and after calls; calls one by one and together; every kind of arguments."""
    found: list[list[Segment]] = []
    for at, arguments in enumerate(ARGUMENTS):
        one, other = ("get_weather", arguments), ("search", ARGUMENTS[(at + 3) % len(ARGUMENTS)])
        found += [
            [[one]],
            ["Let me look.\n", [one]],
            [[other], "\nThat is one of {two}:\n", [one]],
            ["First < this.\n\n", [one, other], "\nDone."],
            [[one, other, ("f", {})]],
        ]
    return found


def unfinished() -> list[list[Segment]]:
    last = ("get_weather", {"city": LAST_WORD + "ed"})
    return [[[last]], ["Hm.\n", [last]], [[("f", {"days": 1})], "\nAnd:\n", [last]]]


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def hermes(calls: list[Call]) -> str:
    return "\n".join(
        f'<tool_call>\n{{"name": "{name}", "arguments": {compact(arguments)}}}\n</tool_call>'
        for name, arguments in calls
    )


def qwen_coder(calls: list[Call]) -> str:
    blocks = []
    for name, arguments in calls:
        parameters = "".join(f"<parameter={key}>\n{bare(value)}\n</parameter>\n" for key, value in arguments.items())
        blocks.append(f"<tool_call>\n<function={name}>\n{parameters}</function>\n</tool_call>")
    return "\n".join(blocks)


def bare(value: Any) -> str:
    return value if isinstance(value, str) else compact(value)


def llama_json(calls: list[Call]) -> str:
    return "; ".join(f'{{"name": "{name}", "parameters": {compact(arguments)}}}' for name, arguments in calls)


def llama_tagged(calls: list[Call]) -> str:
    return "<|python_tag|>" + llama_json(calls)


def python_list(calls: list[Call]) -> str:
    return "[" + ", ".join(f"{name}({', '.join(map(assigned, arguments.items()))})" for name, arguments in calls) + "]"


def assigned(item: tuple[str, Any]) -> str:
    return f"{item[0]}={item[1]!r}"


def llama_4_tagged(calls: list[Call]) -> str:
    return f"<|python_start|>{python_list(calls)}<|python_end|>"


def lfm2(calls: list[Call]) -> str:
    return f"<|tool_call_start|>{python_list(calls)}<|tool_call_end|>"


def objects(calls: list[Call]) -> str:
    return "[" + ", ".join(f'{{"name": "{name}", "arguments": {compact(given)}}}' for name, given in calls) + "]"


def mistral_v3(calls: list[Call]) -> str:
    return f"[TOOL_CALLS] {objects(calls)}"


def mistral_v11(calls: list[Call]) -> str:
    return "".join(f"[TOOL_CALLS]{name}[ARGS]{compact(arguments)}" for name, arguments in calls)


def mistral_with_ids(calls: list[Call]) -> str:
    return "".join(f"[TOOL_CALLS]{name}[CALL_ID]a1b2c3d4e[ARGS]{compact(arguments)}" for name, arguments in calls)


def granite(calls: list[Call]) -> str:
    return f"<|tool_call|>{objects(calls)}"


def glm(calls: list[Call]) -> str:
    blocks = []
    for name, arguments in calls:
        pairs = (
            f"<arg_key>{key}</arg_key>\n<arg_value>{bare(value)}</arg_value>\n" for key, value in arguments.items()
        )
        blocks.append(f"<tool_call>{name}\n{''.join(pairs)}</tool_call>")
    return "\n".join(blocks)


def glm_4_7(calls: list[Call]) -> str:
    return glm(calls).replace("</arg_key>\n", "</arg_key>").replace("</arg_value>\n", "</arg_value>")


def deepseek_v3(calls: list[Call]) -> str:
    blocks = [
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{compact(arguments)}\n```<｜tool▁call▁end｜>"
        for name, arguments in calls
    ]
    return "<｜tool▁calls▁begin｜>" + "\n".join(blocks) + "<｜tool▁calls▁end｜>"


def deepseek_v31(calls: list[Call]) -> str:
    blocks = [
        f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{compact(arguments)}<｜tool▁call▁end｜>" for name, arguments in calls
    ]
    return "<｜tool▁calls▁begin｜>" + "".join(blocks) + "<｜tool▁calls▁end｜>"


def between(opens: str, closes: str) -> Callable[[list[Call]], str]:
    return lambda calls: f"{opens}{objects(calls)}{closes}"


def dsml(wrapper: str) -> Callable[[list[Call]], str]:
    def written(calls: list[Call]) -> str:
        blocks = []
        for name, arguments in calls:
            parameters = "\n".join(
                f'<｜DSML｜parameter name="{key}" string="{str(isinstance(value, str)).lower()}">{bare(value)}'
                "</｜DSML｜parameter>"
                for key, value in arguments.items()
            )
            blocks.append(f'<｜DSML｜invoke name="{name}">\n{parameters}\n</｜DSML｜invoke>\n')
        return f"<｜DSML｜{wrapper}>\n{''.join(blocks)}</｜DSML｜{wrapper}>"

    return written


def kimi(calls: list[Call]) -> str:
    blocks = [
        f"<|tool_call_begin|>functions.{name}:{index}<|tool_call_argument_begin|>{compact(arguments)}<|tool_call_end|>"
        for index, (name, arguments) in enumerate(calls)
    ]
    return f"<|tool_calls_section_begin|>{''.join(blocks)}<|tool_calls_section_end|>"


def minimax(calls: list[Call]) -> str:
    blocks = []
    for name, arguments in calls:
        parameters = "".join(f'<parameter name="{key}">{bare(value)}</parameter>\n' for key, value in arguments.items())
        blocks.append(f'<invoke name="{name}">\n{parameters}</invoke>\n')
    return f"<minimax:tool_call>\n{''.join(blocks)}</minimax:tool_call>"


def seed_oss(calls: list[Call]) -> str:
    blocks = []
    for name, arguments in calls:
        parameters = "".join(f"<parameter={key}>{value}</parameter>\n" for key, value in arguments.items())
        blocks.append(f"<seed:tool_call>\n<function={name}>\n{parameters}</function>\n</seed:tool_call>")
    return "\n".join(blocks)


def cohere(calls: list[Call]) -> str:
    written = [
        f'    {{"tool_call_id": "{index}", "tool_name": "{name}", "parameters": {compact(arguments)}}}'
        for index, (name, arguments) in enumerate(calls)
    ]
    return "<|START_ACTION|>[\n" + ",\n".join(written) + "\n]<|END_ACTION|>"


def internlm(calls: list[Call]) -> str:
    return "".join(
        f'<|action_start|><|plugin|>\n{{"name": "{name}", "parameters": {compact(arguments)}}}<|action_end|>'
        for name, arguments in calls
    )


def apertus(calls: list[Call]) -> str:
    written = [f'{{"{name}": {compact(arguments)}}}' for name, arguments in calls]
    return f"<|tools_prefix|>[{', '.join(written)}]<|tools_suffix|>"


def olmo(calls: list[Call]) -> str:
    def value(one: Any) -> str:
        return repr(one) if isinstance(one, str) else compact(one)

    lines = [f"{name}({', '.join(f'{key}={value(one)}' for key, one in given.items())})" for name, given in calls]
    return "<function_calls>\n" + "\n".join(lines) + "\n</function_calls>"


def gemma(quote: str, before: str, after: str) -> Callable[[list[Call]], str]:
    def value(one: Any) -> str:
        if isinstance(one, dict):
            return "{" + ",".join(f"{key}:{value(inner)}" for key, inner in one.items()) + "}"
        if isinstance(one, list):
            return "[" + ",".join(map(value, one)) + "]"
        return f"{quote}{one}{quote}" if isinstance(one, str) else compact(one)

    return lambda calls: "".join(f"{before}call:{name}{value(arguments)}{after}" for name, arguments in calls)


def joined(write: Callable[[list[Call]], str]) -> Callable[[list[Segment]], str]:
    return lambda segments: "".join(one if isinstance(one, str) else write(one) for one in segments)


def harmony(segments: list[Segment], head: str = "<|channel|>commentary to=functions.NAME <|constrain|>json") -> str:
    messages = ["<|channel|>analysis<|message|>We need the {tool}.<|end|>"]
    for segment in segments:
        if isinstance(segment, str):
            messages.append(f"<|channel|>commentary<|message|>{segment}<|end|>")
            continue
        for name, arguments in segment:
            messages.append(f"{head.replace('NAME', name)}<|message|>{compact(arguments)}<|call|>")
    return "<|start|>assistant".join(messages)


NOTATIONS: dict[str, tuple[str, Callable[[list[Segment]], str]]] = {
    "hermes": ("hermes", joined(hermes)),
    "qwen_coder": ("qwen_coder", joined(qwen_coder)),
    "llama_json": ("llama_json", joined(llama_json)),
    "llama_tagged": ("llama_json", joined(llama_tagged)),
    "llama_python": ("llama_python", joined(python_list)),
    "llama_4_tagged": ("llama_python", joined(llama_4_tagged)),
    "lfm2": ("lfm2", joined(lfm2)),
    "lfm2_json": ("lfm2", joined(lambda calls: f"<|tool_call_start|>{objects(calls)}<|tool_call_end|>")),
    "mistral_v3": ("mistral", joined(mistral_v3)),
    "mistral_v11": ("mistral", joined(mistral_v11)),
    "mistral_with_ids": ("mistral", joined(mistral_with_ids)),
    "granite": ("granite", joined(granite)),
    "glm": ("glm", joined(glm)),
    "glm_4_7": ("glm", joined(glm_4_7)),
    "deepseek_v3": ("deepseek", joined(deepseek_v3)),
    "deepseek_v31": ("deepseek", joined(deepseek_v31)),
    "dsml_v32": ("dsml", joined(dsml("function_calls"))),
    "dsml_v4": ("dsml", joined(dsml("tool_calls"))),
    "kimi": ("kimi", joined(kimi)),
    "minimax": ("minimax", joined(minimax)),
    "seed_oss": ("seed_oss", joined(seed_oss)),
    "cohere": ("cohere", joined(cohere)),
    "phi": ("phi", joined(between("<|tool_call|>", "<|/tool_call|>"))),
    "phi_functools": ("phi", joined(between("functools", ""))),
    "nemotron": ("nemotron", joined(between("<TOOLCALL>", "</TOOLCALL>"))),
    "jamba": ("jamba", joined(between("<tool_calls>", "</tool_calls>"))),
    "internlm": ("internlm", joined(internlm)),
    "apertus": ("apertus", joined(apertus)),
    "xlam": ("xlam", joined(objects)),
    "olmo": ("olmo", joined(olmo)),
    "gemma": ("gemma", joined(gemma('<|"|>', "<|tool_call>", "<tool_call|>"))),
    "function_gemma": ("gemma", joined(gemma("<escape>", "<start_function_call>", "<end_function_call>"))),
    "harmony": ("harmony", harmony),
    "harmony_by_role": (
        "harmony",
        lambda segments: harmony(segments, " to=functions.NAME<|channel|>commentary json"),
    ),
}
