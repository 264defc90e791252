"""Reasoning at the start of an answer: what a model thinks before it speaks. Pure; any thread."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.parsing.tool_calls.scanner import EndedError, Scanner, Steps


@dataclass(frozen=True, slots=True)
class ReasoningForm:
    """What reasoning begins and ends with.

    ``ignored``: signs round the answer itself, which are no part of it where reasoning stands before; ``frames`` never
    are.
    """

    name: str
    opens: tuple[str, ...]
    closes: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    frames: tuple[str, ...] = ()

    @property
    def signs(self) -> frozenset[str]:
        """What has to be seen of an answer though it be a special token."""
        return frozenset(self.opens + self.closes + self.ignored + self.frames)


# DeepSeek, Qwen3, GLM, Granite 3.3 and 4, SmolLM3 and many more; Granite puts tags round the answer, too
# (chat template of ibm-granite/granite-3.3-8b-instruct).
THINK = ReasoningForm("think", ("<think>",), ("</think>",), ("<response>", "</response>"))
# The chat template of mistralai/Magistral-Small-2509.
MAGISTRAL = ReasoningForm("magistral", ("[THINK]",), ("[/THINK]",))
# The chat template of ibm-granite/granite-3.2-8b-instruct.
GRANITE_WORDS = ReasoningForm(
    "granite",
    ("Here is my thought process:", "Here's my thought process:"),
    ("Here is my response:", "Here's my response:"),
)
# Gemma 4's chat template: a channel named thought.
GEMMA_THOUGHT = ReasoningForm("gemma", ("<|channel>thought",), ("<channel|>",))
# The chat template of tencent/Hunyuan-A13B-Instruct, which puts tags round the answer.
HUNYUAN = ReasoningForm("hunyuan", ("<think>",), ("</think>",), ("<answer>", "</answer>"))
# The chat template of ByteDance-Seed/Seed-OSS-36B-Instruct.
SEED_THINK = ReasoningForm("seed", ("<seed:think>",), ("</seed:think>",))
# The tool use template of CohereForAI/c4ai-command-r7b-12-2024.
COHERE_THINKING = ReasoningForm(
    "cohere",
    ("<|START_THINKING|>",),
    ("<|END_THINKING|>",),
    frames=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
)
# The chat template of swiss-ai/Apertus-8B-Instruct-2509.
APERTUS_INNER = ReasoningForm("apertus", ("<|inner_prefix|>",), ("<|inner_suffix|>",))
# Read with the calls (``forms/harmony.py``), whose signs it shares.
HARMONY_CHANNELS = ReasoningForm("harmony", (), ())


def read_reasoning(s: Scanner, form: ReasoningForm, *, is_open: bool, before: tuple[str, ...] = ()) -> Steps[None]:
    """Read the reasoning that the answer begins with, if any, and the white space round it.

    ``is_open``: the prompt has opened it. ``before``: signs that end it, too, and are not read. Without its end the
    whole answer is reasoning.
    """
    start = s.at
    if is_open:
        s.enter_thought()
    yield from s.skip_space()
    if not (yield from s.accept(*form.opens)) and not is_open:
        s.at = start
        return
    s.enter_thought()
    yield from s.skip_space()
    space = ""
    try:
        while piece := (yield from s.piece_until(*form.closes, *before)):
            text = space + piece
            shown = text.rstrip()
            space = text[len(shown) :]
            s.think(shown)
            s.forget()
    except EndedError:
        return
    yield from s.accept(*form.closes)
    s.leave()
    yield from s.skip_space()
