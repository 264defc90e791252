"""Whether guessed tokens pay: what feeding them costs is measured, what they brought decides. Inference thread only.

A step that checks guesses takes longer than one without, by how much differs by ten times between machines and numbers
of rows. Right guesses save steps. Guessing goes on where it is expected to save more than it costs; else it is tried
only from a small account, into which a share of the time of plain steps goes and which every loss is taken from. So
whatever the texts are, guessing costs no more than that share.
"""

from __future__ import annotations

# Of the time of steps without guesses: what trying them may cost. One in a hundred is left for the looking up.
SHARE = 0.01
# Of one step: what a try may cost that is paid from the account, so that it is no stop for whoever reads.
MOST_CREDIT_STEPS = 1.0
# Until it was measured: what each further token of a row adds to a step, as a share of it.
ASSUMED_SHARE = 0.5
# Weight of the newest step, or guess, in a running average.
NEWEST = 0.2
NEWEST_GUESS = 0.4
FIRST_LENGTH = 2


class DraftPolicy:
    """Measures steps by how many rows decode and how many tokens each of them is fed."""

    def __init__(self) -> None:
        self._step_s: dict[tuple[int, int], float] = {}
        self._credit_s = 0.0

    def is_worth(self, num_rows: int, num_new: int, expected: float) -> bool:
        """Whether to feed ``num_new`` tokens to each of ``num_rows``, ``expected`` of them right guesses."""
        plain_s = self._step_s.get((num_rows, 1))
        if plain_s is None:
            return False
        cost_s = self._drafted_s(num_rows, num_new, plain_s) - plain_s
        return expected * plain_s / num_rows >= cost_s or cost_s <= self._credit_s

    def observe(self, num_rows: int, num_new: int, num_right: int, took_s: float) -> None:
        """A step without prompts took so long; ``num_right`` of the guesses in it were right."""
        plain_s = self._step_s.get((num_rows, 1))
        key = num_rows, num_new
        known_s = self._step_s.get(key, took_s)
        self._step_s[key] = (1 - NEWEST) * known_s + NEWEST * took_s
        if num_new == 1:
            self._pay(SHARE * self._step_s[key], self._step_s[key])
        elif plain_s is not None:
            # The average, as a step that something else disturbed says nothing of guessing.
            self._pay(plain_s * (1 + num_right / num_rows) - self._step_s[key], plain_s)

    def _drafted_s(self, num_rows: int, num_new: int, plain_s: float) -> float:
        """What such a step takes: as measured, else as the nearest number of tokens lets expect."""
        known = {new: took_s for (rows, new), took_s in self._step_s.items() if rows == num_rows and new > 1}
        if num_new in known:
            return known[num_new]
        nearest = min(known, key=lambda new: abs(new - num_new), default=None)
        each_s = ASSUMED_SHARE * plain_s if nearest is None else (known[nearest] - plain_s) / (nearest - 1)
        return plain_s + (num_new - 1) * max(each_s, 0.0)

    def _pay(self, gain_s: float, plain_s: float) -> None:
        most_s = MOST_CREDIT_STEPS * plain_s
        self._credit_s = min(max(self._credit_s + gain_s, -2 * most_s), most_s)


class DraftRecord:
    """What became of one sequence's guesses: how long the next may be, and how many of it will be right.

    ``adapts`` False: as long as allowed, always.
    """

    def __init__(self, most: int, *, adapts: bool):
        self._most, self._adapts = most, adapts
        self.length = min(FIRST_LENGTH, most) if adapts else most
        self.rate = 0.0

    def note(self, num_guessed: int, num_right: int) -> None:
        """Of ``num_guessed`` tokens so many were right: the next guess is longer, or shorter."""
        if not self._adapts or not num_guessed:
            return
        self.rate += NEWEST_GUESS * (num_right / num_guessed - self.rate)
        if num_right == num_guessed:
            self.length = min(2 * self.length, self._most)
        elif 2 * num_right < num_guessed:
            self.length = max(self.length // 2, min(FIRST_LENGTH, self._most))
