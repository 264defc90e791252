"""gpt-oss' channels: `<|channel|>commentary to=functions.name <|constrain|>json<|message|>{..}<|call|>`.

Source: OpenAI's page on the harmony response format and the chat template of openai/gpt-oss-20b. `analysis` is
reasoning, `final` and `commentary` to nobody are content; a message to a function is a call, whose name may stand
before the channel, too.
"""

from __future__ import annotations

import re

from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.json_calls import begin_json, read_closing
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.core.parsing.tool_calls.scanner import EndedError, MalformedError, Scanner, Steps

START, CHANNEL, CONSTRAIN, MESSAGE = "<|start|>", "<|channel|>", "<|constrain|>", "<|message|>"
ENDS = ("<|end|>", "<|call|>", "<|return|>")
HEADS = (START, CHANNEL)
FINAL = f"{CHANNEL}final"
# Between a message that the model goes on after and the next one.
NEXT_MESSAGE = f"{ENDS[0]}{START}assistant"
MOST_HEADER = 512

_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
_RECIPIENT = re.compile(r"\bto=(?:functions\.)?([\w.\-]+)(?=[\s<])")


def read_messages(s: Scanner, _tools: KnownTools) -> Steps[None]:
    """The whole answer: messages, one after the other, and what stands outside of any."""
    if not (yield from s.is_next(*HEADS)) and (yield from s.is_next(" to=", MESSAGE)):
        yield from _read_message(s)
    while sign := (yield from s.content_until(*HEADS, *ENDS, MESSAGE)):
        if sign not in HEADS:
            s.at += len(sign)
            continue
        yield from _read_message(s)


def _read_message(s: Scanner) -> Steps[None]:
    """A message up to its end, which is not read; of one that is in no form, the head is content."""
    start, num_before = s.at, s.num_calls
    try:
        yield from _read_parts(s)
    except EndedError:
        header = s.text[start:] if MESSAGE not in s.text[start:] else ""
        recipient = _RECIPIENT.search(header)
        if recipient is not None and s.num_calls == num_before:
            s.start_call(recipient[1])
        s.at = len(s.text)
    except MalformedError:
        if s.num_calls == num_before and s.at <= start + MOST_HEADER and MESSAGE not in s.text[start : s.at]:
            s.at = start
            s.let_go(start + (len(START) if s.text.startswith(START, start) else len(CHANNEL)))


def _read_parts(s: Scanner) -> Steps[None]:
    header = yield from s.until(MESSAGE, most=MOST_HEADER)
    channel, recipient = _CHANNEL.search(header), _RECIPIENT.search(f"{header} ")
    if recipient is not None:
        yield from begin_json(s, recipient[1], *ENDS)
        yield from read_closing(s, *ENDS)
    elif channel is not None and channel[1] == "analysis":
        s.enter_thought()
        while piece := (yield from s.piece_until(*ENDS, *HEADS)):
            s.think(piece)


HARMONY = CallForm(
    "harmony", (), lambda s, sign, tools: read_messages(s, tools), (*HEADS, CONSTRAIN, MESSAGE, *ENDS), read_messages
)
