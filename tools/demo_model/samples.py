"""Draws the training samples: the mixture of code, infilling and chat, from one seed.

Knows text and loss spans only; `prepare` turns them into tokens and rows.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from tools.demo_model.code import chunks, comment_above, definitions
from tools.demo_model.corpus import SourceFile
from tools.demo_model.infill import random_hole, windowed
from tools.demo_model.questions import FIXED_PAIRS, Message, Pair, conversation, fixed_conversation
from tools.demo_model.tokenizer import END_OF_TEXT

CHUNK_CHARS = 3000
MAX_DEFINITION_CHARS = 2500
CODE_CHARS_PER_ROUND = 2_600_000
SHOWINGS_PER_ROUND = 4
# Shares of samples, not of tokens: infilling and definitions are shorter than chunks.
INFILL_SHARE = 0.45
DEFINITION_SHARE = 0.35
COMMENT_SHARE = 0.25
UNCUT_SHARE = 0.5
CUT_CHARS = 400
COMMENT_STYLES = ("# ", "# ", "#")


@dataclass(frozen=True)
class Segment:
    """A stretch of a sample's text and whether its tokens are learned."""

    text: str
    learned: bool


Sample = list[Segment]


@dataclass(frozen=True)
class CodePool:
    """Pieces of code to draw from, with the cumulative weights of their files."""

    chunks: list[str]
    chunk_weights: list[float]
    definitions: list[tuple[str, str]]
    definition_weights: list[float]

    def draw_chunk(self, rng: random.Random) -> str:
        return rng.choices(self.chunks, cum_weights=self.chunk_weights)[0]

    def draw_definition(self, rng: random.Random) -> tuple[str, str]:
        return rng.choices(self.definitions, cum_weights=self.definition_weights)[0]


def code_pool(files: list[SourceFile]) -> CodePool:
    """Cuts every file; each definition is kept plain and with a comment in place of its docstring."""
    pieces: list[tuple[str, float]] = []
    sources: list[tuple[tuple[str, str], float]] = []
    for file in files:
        for chunk in chunks(file.text, CHUNK_CHARS):
            weight = file.weight * max(1.0, len(chunk) / CHUNK_CHARS)
            pieces.append((chunk, weight))
        for node, source in definitions(file.text):
            if 60 <= len(source) <= MAX_DEFINITION_CHARS:
                sources.append(((source, comment_above(node, source, style="")), file.weight))
    return CodePool(
        [chunk for chunk, _ in pieces],
        list(accumulate(weight for _, weight in pieces)),
        [both for both, _ in sources],
        list(accumulate(weight for _, weight in sources)),
    )


def window(text: str, max_chars: int, rng: random.Random) -> str:
    """The text, or a random part of whole lines of at most `max_chars`."""
    if len(text) <= max_chars:
        return text
    start = rng.randint(0, len(text) - max_chars)
    part = text[start : start + max_chars]
    return part[part.find("\n") + 1 : part.rfind("\n") + 1] or part


def plain_sample(text: str, rng: random.Random) -> Sample:
    """The text, half the time tokenized in two parts as if a request had stopped at the cut.

    Cuts fall at a line's end, at its start, after its indentation or anywhere:
    a prompt that ends in ":" must be known to go on with a newline although
    ":\\n" is one token elsewhere.
    """
    if rng.random() < UNCUT_SHARE:
        return [Segment(text, True)]
    newline = text.find("\n", rng.randrange(min(len(text), CUT_CHARS)))
    indent = len(text[newline + 1 :]) - len(text[newline + 1 :].lstrip(" "))
    cut = rng.choice((newline, newline, newline + 1, newline + 1 + indent, rng.randrange(len(text))))
    return [Segment(part, True) for part in (text[: max(cut, 0)], text[max(cut, 0) :]) if part]


def chunk_sample(pool: CodePool, rng: random.Random) -> Sample:
    chunk = pool.draw_chunk(rng)
    part = window(chunk, CHUNK_CHARS, rng)
    ending = END_OF_TEXT if chunk.endswith(part) else ""
    return plain_sample(part + ending, rng)


def definition_sample(pool: CodePool, rng: random.Random) -> Sample:
    plain, commented = pool.draw_definition(rng)
    if rng.random() < COMMENT_SHARE:
        plain = rng.choice(COMMENT_STYLES) + commented
    return plain_sample(plain + END_OF_TEXT, rng)


def infill_sample(pool: CodePool, rng: random.Random) -> Sample:
    from_chunk = rng.random() >= 0.5
    text = window(pool.draw_chunk(rng), CHUNK_CHARS, rng) if from_chunk else pool.draw_definition(rng)[0]
    hole = random_hole(text, rng)
    if hole is None:
        return [Segment(text + END_OF_TEXT, True)]
    hole = windowed(hole, prefix_chars=rng.randint(400, 1400), suffix_chars=rng.randint(200, 900))
    return [Segment(hole.prompt() + hole.middle + END_OF_TEXT, True)]


def code_sample(pool: CodePool, rng: random.Random) -> Sample:
    draw = rng.random()
    if draw < INFILL_SHARE:
        return infill_sample(pool, rng)
    return definition_sample(pool, rng) if draw < INFILL_SHARE + DEFINITION_SHARE else chunk_sample(pool, rng)


def chat_sample(messages: list[Message]) -> Sample:
    """ChatML text in which only the assistant's words and their end are learned."""
    sample: Sample = []
    for message in messages:
        learned = message["role"] == "assistant"
        sample.append(Segment(f"<|im_start|>{message['role']}\n", False))
        sample.append(Segment(f"{message['content']}<|im_end|>", learned))
        sample.append(Segment("\n", False))
    return sample


def round_samples(pool: CodePool, pairs: list[Pair], rng: random.Random) -> list[Sample]:
    """One round of the mixture: every pair `SHOWINGS_PER_ROUND` times among fresh code, shuffled."""
    samples = [chat_sample(conversation(pair, pairs, rng)) for pair in pairs for _ in range(SHOWINGS_PER_ROUND)]
    samples += [chat_sample(fixed_conversation(rng)) for _ in range(3 * len(FIXED_PAIRS))]
    num_chars = 0
    while num_chars < CODE_CHARS_PER_ROUND:
        sample = code_sample(pool, rng)
        num_chars += sum(len(segment.text) for segment in sample)
        samples.append(sample)
    rng.shuffle(samples)
    return samples


def rounds(pool: CodePool, pairs: list[Pair], seed: int, num_rounds: int) -> Iterator[list[Sample]]:
    for number in range(num_rounds):
        yield round_samples(pool, pairs, random.Random(f"{seed}-{number}"))
