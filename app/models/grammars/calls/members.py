"""Members of an object as rules: in the schema's order, those that are not required may be left out. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.models.grammars.calls.lark_rules import LarkRules

# Rules are made for each member and each number of members before it that counts.
MAX_RULES = 20_000


@dataclass(frozen=True, slots=True)
class MemberRule:
    """How one member is written, its name included."""

    body: str
    is_required: bool


class TooManyMembersError(ValueError):
    """Counting them would take too many rules."""


def member_rules(
    rules: LarkRules, members: Sequence[MemberRule], between: str, least: int = 0, most: int | None = None
) -> str | None:
    """The body of a rule for ``members``, with ``between`` between two, at least and at most so many of them.

    Empty where they have to be left out, all of them; None where the counts leave nothing.
    """
    top = len(members) if most is None else min(most, len(members))
    if (len(members) + 1) * (top + 1) > MAX_RULES:
        raise TooManyMembersError
    # By the number of members so far, which counts up to the most that matters.
    limit = max(least, 1) if most is None else top
    rest: list[str | None] = ["" if count >= least else None for count in range(limit + 1)]
    for member in reversed(members):
        rest = [
            _choice(rules, member, between if count else "", _at(rest, count, limit, most), rest[count])
            for count in range(limit + 1)
        ]
    return rest[0]


def _at(rest: list[str | None], count: int, limit: int, most: int | None) -> str | None:
    """What may follow one member more."""
    if count < limit:
        return rest[count + 1]
    return rest[limit] if most is None else None


def _choice(rules: LarkRules, member: MemberRule, between: str, behind: str | None, without: str | None) -> str | None:
    taken = None if behind is None else f"{between} {member.body} {behind}".strip()
    if member.is_required or without is None:
        return None if taken is None else rules.rule(taken)
    if taken is None:
        return without
    return rules.rule(f"({taken})?" if without == "" else f"{taken} | {without}")
