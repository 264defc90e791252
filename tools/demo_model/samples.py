"""Draws the training samples: the mixture of code, infilling and chat, from one seed.

Knows text and loss spans only; `prepare` turns them into tokens and rows.
"""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from tools.demo_model.code import chunks, comment_above, definitions
from tools.demo_model.corpus import SourceFile
from tools.demo_model.functions import known_functions
from tools.demo_model.infill import Hole, code_lines, line_hole, random_hole, windowed
from tools.demo_model.questions import FIXED_PAIRS, Message, Pair, conversation, fixed_conversation
from tools.demo_model.tokenizer import END_OF_TEXT

CHUNK_CHARS = 3000
MAX_DEFINITION_CHARS = 2500
LINE_SHARE = 0.75
# A middle is a twentieth of its sample: at weight 1 it is lost among the tokens of plain code.
MIDDLE_WEIGHT = 4
COMMENT_SHARE = 0.25
UNCUT_SHARE = 0.5
CUT_CHARS = 400
COMMENT_STYLES = ("# ", "# ", "#")


@dataclass(frozen=True)
class Segment:
    """A stretch of a sample's text and the weight of its tokens in the loss; 0 for what is not learned."""

    text: str
    weight: int


Sample = list[Segment]


@dataclass(frozen=True)
class CodePool:
    """Pieces of code to draw from, with the cumulative weights of their files."""

    chunks: list[str]
    chunk_weights: list[float]
    definitions: list[tuple[str, str]]
    definition_weights: list[float]
    known: list[str]

    def draw_chunk(self, rng: random.Random) -> str:
        return rng.choices(self.chunks, cum_weights=self.chunk_weights)[0]

    def draw_definition(self, rng: random.Random) -> tuple[str, str]:
        return rng.choices(self.definitions, cum_weights=self.definition_weights)[0]


def code_pool(files: list[SourceFile]) -> CodePool:
    """Cut every file; each definition is kept plain and with a comment in place of its docstring."""
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
        known_functions(files),
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
        return [Segment(text, 1)]
    newline = text.find("\n", rng.randrange(min(len(text), CUT_CHARS)))
    indent = len(text[newline + 1 :]) - len(text[newline + 1 :].lstrip(" "))
    cut = rng.choice((newline, newline, newline + 1, newline + 1 + indent, rng.randrange(len(text))))
    return [Segment(part, 1) for part in (text[: max(cut, 0)], text[max(cut, 0) :]) if part]


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


def draw_text(pool: CodePool, rng: random.Random) -> str:
    """A piece of a file or a definition, as often the one as the other."""
    from_chunk = rng.random() >= 0.5
    return window(pool.draw_chunk(rng), CHUNK_CHARS, rng) if from_chunk else pool.draw_definition(rng)[0]


def infill_sample(pool: CodePool, rng: random.Random) -> Sample:
    """A hole of any kind in up to 2,300 characters, all of which are learned."""
    text = draw_text(pool, rng)
    hole = random_hole(text, rng)
    if hole is None:
        return [Segment(text + END_OF_TEXT, 1)]
    hole = windowed(hole, prefix_chars=rng.randint(400, 1400), suffix_chars=rng.randint(200, 900))
    return [Segment(hole.prompt() + hole.middle + END_OF_TEXT, 1)]


def line_infill_sample(pool: CodePool, rng: random.Random) -> Sample:
    """Mostly one missing line, near its context; only what is missing is learned, with more weight."""
    text = draw_text(pool, rng)
    hole = line_or_other_hole(text, rng)
    if hole is None:
        return [Segment(text + END_OF_TEXT, 1)]
    hole = windowed(hole, prefix_chars=log_uniform(80, 700, rng), suffix_chars=log_uniform(40, 600, rng))
    return [Segment(hole.prompt(), 0), Segment(hole.middle + END_OF_TEXT, MIDDLE_WEIGHT)]


def known_sample(pool: CodePool, rng: random.Random) -> Sample:
    """One missing line of a known function, all of which is learned, the line with more weight."""
    text = rng.choice(pool.known)
    hole = line_hole(text, rng.choice(code_lines(text)), keep_indent=rng.random() < 0.8)
    return [Segment(hole.prompt(), 1), Segment(hole.middle + END_OF_TEXT, MIDDLE_WEIGHT)]


def line_or_other_hole(text: str, rng: random.Random) -> Hole | None:
    lines = code_lines(text)
    if not lines or rng.random() >= LINE_SHARE:
        return random_hole(text, rng)
    return line_hole(text, rng.choice(lines), keep_indent=rng.random() < 0.8)


def log_uniform(low: int, high: int, rng: random.Random) -> int:
    """Between `low` and `high`, each doubling as likely as the next."""
    return round(math.exp(rng.uniform(math.log(low), math.log(high))))


Draw = Callable[[CodePool, random.Random], Sample]


@dataclass(frozen=True)
class Mixture:
    """What a round holds: characters of code, showings of each pair, and the kinds of code samples.

    Shares are of samples, not of tokens: infilling and definitions are shorter than chunks.
    """

    code_chars: int
    showings_of_pairs: int
    draws: tuple[tuple[float, Draw], ...]


MIXTURES = {
    "base": Mixture(2_600_000, 4, ((0.45, infill_sample), (0.35, definition_sample), (0.2, chunk_sample))),
    "lines": Mixture(1_700_000, 1, ((0.88, line_infill_sample), (0.06, definition_sample), (0.06, chunk_sample))),
    "known": Mixture(
        1_700_000,
        1,
        ((0.7, known_sample), (0.16, line_infill_sample), (0.07, definition_sample), (0.07, chunk_sample)),
    ),
}


def code_sample(mixture: Mixture, pool: CodePool, rng: random.Random) -> Sample:
    position, end = rng.random(), 0.0
    for share, draw in mixture.draws[:-1]:
        end += share
        if position < end:
            return draw(pool, rng)
    return mixture.draws[-1][1](pool, rng)


def chat_sample(messages: list[Message]) -> Sample:
    """ChatML text in which only the assistant's words and their end are learned."""
    sample: Sample = []
    for message in messages:
        weight = int(message["role"] == "assistant")
        sample.append(Segment(f"<|im_start|>{message['role']}\n", 0))
        sample.append(Segment(f"{message['content']}<|im_end|>", weight))
        sample.append(Segment("\n", 0))
    return sample


def round_samples(mixture: Mixture, pool: CodePool, pairs: list[Pair], rng: random.Random) -> list[Sample]:
    """One round of the mixture: every pair as often as it says among fresh code, shuffled."""
    samples = [chat_sample(conversation(pair, pairs, rng)) for pair in pairs for _ in range(mixture.showings_of_pairs)]
    samples += [chat_sample(fixed_conversation(rng)) for _ in range(3 * len(FIXED_PAIRS))]
    num_chars = 0
    while num_chars < mixture.code_chars:
        sample = code_sample(mixture, pool, rng)
        num_chars += sum(len(segment.text) for segment in sample)
        samples.append(sample)
    rng.shuffle(samples)
    return samples


def rounds(mixture: Mixture, pool: CodePool, pairs: list[Pair], seed: int, num_rounds: int) -> Iterator[list[Sample]]:
    for number in range(num_rounds):
        yield round_samples(mixture, pool, pairs, random.Random(f"{seed}-{number}"))
