"""The notations of calls that grammars are written in: what stands around a call's arguments. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from app.core.parsing.tool_calls.forms.code_forms import gemma, olmo
from app.core.parsing.tool_calls.forms.named_forms import deepseek, harmony, kimi
from app.core.parsing.tool_calls.forms.object_forms import apertus, cohere, internlm, jamba, nemotron, phi
from app.core.parsing.tool_calls.forms.tagged_forms import dsml, minimax, seed_oss

Arguments = Literal[
    "json",
    "qwen_coder",
    "seed_oss",
    "glm",
    "glm_compact",
    "minimax",
    "dsml",
    "python",
    "python_with_json_words",
    "gemma",
    "function_gemma",
]
# A number that counts calls, which the model chooses.
COUNTER = "\0"


@dataclass(frozen=True, slots=True)
class CallNotation:
    """How calls are written: ``before`` holds NAME, it may hold COUNTER; arguments stand between it and ``after``.

    ``signs`` are what free text may not hold, the first what a call begins with; ``line_signs`` what no line of it may
    begin with, where calls stand bare and never behind text. ``names`` is the form of a function's name.
    """

    signs: tuple[str, ...]
    before: str
    after: str
    begin: str = ""
    between: str = ""
    end: str = ""
    line_signs: str = ""
    arguments: Arguments = "json"
    names: str = r"[\w.\-]+"

    @property
    def may_follow_text(self) -> bool:
        return not self.line_signs


_OBJECT = '{"name": "NAME", "arguments": '
_TOOL_CALL = ("<tool_call>",)
_GLM = CallNotation(_TOOL_CALL, "<tool_call>NAME\n", "</tool_call>", between="\n", arguments="glm")
_LIST = ("[", ", ", "]")


def _object_list(begin: str, end: str) -> CallNotation:
    """A list of objects between two signs."""
    return CallNotation((begin,), _OBJECT, "}", f"{begin}[", ", ", f"]{end}")


def _dsml(wrapper: int) -> CallNotation:
    opens, closes, tags = dsml.OPENS[wrapper], dsml.CLOSES[wrapper], dsml.TAGS
    return CallNotation(
        (opens, dsml.OPENS[1 - wrapper], tags.opens),
        f'{tags.opens} name="NAME">\n',
        f"{tags.closes}\n",
        f"{opens}\n",
        end=closes,
        arguments="dsml",
    )


NOTATIONS = {
    "hermes": CallNotation(_TOOL_CALL, f"<tool_call>\n{_OBJECT}", "}\n</tool_call>", between="\n"),
    "qwen_coder": CallNotation(
        ("<tool_call>", "<function="),
        "<tool_call>\n<function=NAME>\n",
        "</function>\n</tool_call>",
        between="\n",
        arguments="qwen_coder",
    ),
    "glm_4_5": _GLM,
    "glm_4_7": CallNotation(_TOOL_CALL, "<tool_call>NAME", "</tool_call>", arguments="glm_compact"),
    "granite": CallNotation(("<|tool_call|>", "<tool_call>"), _OBJECT, "}", "<|tool_call|>[", ", ", "]"),
    "llama_json": CallNotation(
        ("<|python_tag|>",), '{"name": "NAME", "parameters": ', "}", between="; ", line_signs="{"
    ),
    "llama_python": CallNotation(
        ("<|python_start|>",), "NAME(", ")", *_LIST, line_signs="[{", arguments="python", names=r"[\w.]+"
    ),
    "lfm2": CallNotation(
        ("<|tool_call_start|>",),
        "NAME(",
        ")",
        "<|tool_call_start|>[",
        ", ",
        "]<|tool_call_end|>",
        arguments="python",
        names=r"[\w.]+",
    ),
    "mistral_v3": CallNotation(("[TOOL_CALLS]",), _OBJECT, "}", "[TOOL_CALLS] [", ", ", "]"),
    "mistral_v11": CallNotation(("[TOOL_CALLS]",), "[TOOL_CALLS]NAME[ARGS]", ""),
    "deepseek_v3": CallNotation(
        (deepseek.CALLS, deepseek.CALL),
        f"{deepseek.CALL}function{deepseek.SEPARATOR}NAME\n```json\n",
        f"\n```{deepseek.CALL_END}",
        deepseek.CALLS,
        "\n",
        deepseek.CALLS_END,
    ),
    "deepseek_v31": CallNotation(
        (deepseek.CALLS, deepseek.CALL),
        f"{deepseek.CALL}NAME{deepseek.SEPARATOR}",
        deepseek.CALL_END,
        deepseek.CALLS,
        "",
        deepseek.CALLS_END,
    ),
    "dsml_v32": _dsml(0),
    "dsml_v4": _dsml(1),
    "kimi": CallNotation(
        (kimi.CALLS, kimi.CALL),
        f"{kimi.CALL}functions.NAME:{COUNTER}{kimi.ARGUMENTS}",
        kimi.CALL_END,
        kimi.CALLS,
        end=kimi.CALLS_END,
    ),
    "minimax": CallNotation(
        (minimax.OPEN,),
        f'{minimax.TAGS.opens} name="NAME">\n',
        f"{minimax.TAGS.closes}\n",
        f"{minimax.OPEN}\n",
        end=minimax.CLOSE,
        arguments="minimax",
    ),
    "seed_oss": CallNotation(
        (seed_oss.OPEN,),
        f"{seed_oss.OPEN}\n<function=NAME>\n",
        f"</function>\n{seed_oss.CLOSE}",
        between="\n",
        arguments="seed_oss",
    ),
    "cohere": CallNotation(
        (cohere.OPEN,),
        f'{{"tool_call_id": "{COUNTER}", "tool_name": "NAME", "parameters": ',
        "}",
        f"{cohere.OPEN}[\n    ",
        ",\n    ",
        f"\n]{cohere.CLOSE}",
    ),
    "jamba": _object_list(jamba.OPEN, jamba.CLOSE),
    "nemotron": _object_list(nemotron.OPEN, nemotron.CLOSE),
    "phi": _object_list(phi.OPEN, phi.CLOSE),
    "phi_functools": CallNotation((phi.FUNCTOOLS, phi.OPEN), _OBJECT, "}", phi.FUNCTOOLS, ", ", "]"),
    "internlm": CallNotation(
        (internlm.OPEN,),
        f'{internlm.OPEN}{internlm.PLUGIN}\n{{"name": "NAME", "parameters": ',
        f"}}{internlm.CLOSE}",
    ),
    "apertus": CallNotation((apertus.OPEN,), '{"NAME": ', "}", f"{apertus.OPEN}[", ", ", f"]{apertus.CLOSE}"),
    "xlam": CallNotation((), _OBJECT, "}", *_LIST, line_signs="["),
    "olmo": CallNotation(
        (olmo.OPEN,),
        "NAME(",
        ")",
        f"{olmo.OPEN}\n",
        "\n",
        f"\n{olmo.CLOSE}",
        arguments="python_with_json_words",
        names=r"[\w.]+",
    ),
    "gemma": CallNotation(gemma.OPENS, "<|tool_call>call:NAME", "<tool_call|>", arguments="gemma"),
    "function_gemma": CallNotation(
        gemma.OPENS[::-1], "<start_function_call>call:NAME", "<end_function_call>", arguments="function_gemma"
    ),
    # A call ends the answer: its last token is one that ends a sequence.
    "harmony": CallNotation(harmony.HEADS, f" to=functions.NAME{harmony.CHANNEL}", "", names=r"[\w.\-]+"),
}
_BY_SIGN = {
    "mistral": ("[ARGS]", "mistral_v11", "mistral_v3"),
    "deepseek": ("```json", "deepseek_v3", "deepseek_v31"),
    "glm": ("</arg_key><arg_value>", "glm_4_7", "glm_4_5"),
    "gemma": ("<start_function_call>", "function_gemma", "gemma"),
    "dsml": ("function_calls>", "dsml_v32", "dsml_v4"),
    "phi": (phi.FUNCTOOLS, "phi_functools", "phi"),
}


def notation_of(form: str, template: str) -> str:
    """The notation of a form's calls that a template shows."""
    if form not in _BY_SIGN:
        return form
    sign, shown, other = _BY_SIGN[form]
    return shown if sign in template else other
