"""Reasoning in front of what a grammar holds: free, but for the signs that end it. HTTP threads; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from app.core.work.sampling_params import ReasoningSpan
from app.models.grammars.calls.lark_rules import LarkRules, regex
from app.models.grammars.grammar_messages import Source

ANSWER = "answer"


def thought_rule(lark: LarkRules, opens: Sequence[str], closes: Sequence[str], *, is_open: bool) -> str:
    """The body of a rule for reasoning and the white space behind it; empty where the model has none."""
    if not closes:
        return ""
    thoughts = [lark.text_up_to(sign, *(one for one in closes if one != sign)) for sign in closes]
    thought, space = lark.rule(" | ".join(thoughts)), lark.terminal(r"/[ \n]+/")
    return f"{thought} {space}?" if is_open else f"(({' | '.join(map(lark.literal, opens))}) {thought} {space}?)?"


def behind_thoughts(source: Source, span: ReasoningSpan, special: Mapping[str, int]) -> Source:
    """``source`` for an answer that reasoning may stand before."""
    lark = LarkRules(special)
    if span.answer:
        thoughts = [f"{lark.literal(sign)} {lark.text_up_to(span.closes[0])}" for sign in span.opens]
        before = f"({' | '.join(thoughts)})* {lark.literal(span.answer)}"
    else:
        before = thought_rule(lark, span.opens, span.closes, is_open=span.is_open)
    if source.kind == "json_schema":
        body = lark.json(source.text)
    else:
        body = f"@{ANSWER}" if source.kind == "lark" else lark.terminal(regex(source.text))
    text = "\n".join(["%llguidance {}", f"start: {before} {body}", *lark.lines]) + "\n"
    grammars = [{"lark_grammar": text}]
    if source.kind == "lark":
        grammars.append({"name": ANSWER, "lark_grammar": source.text})
    return replace(source, kind="grammars", text=json.dumps({"grammars": grammars}), reasoning=span)
