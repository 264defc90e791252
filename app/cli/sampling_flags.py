"""Flags of ``complete`` and ``chat`` for how to generate; each is the field of that name in the server's API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])

# Bounds are the server's to check: it knows its model, and names the field that is wrong.
OPTIONS: dict[str, tuple[type, str]] = {
    "max_new_tokens": (int, "Most tokens to generate."),
    "temperature": (float, "0 is greedy."),
    "top_p": (float, "Nucleus sampling; 1 is off."),
    "top_k": (int, "Best tokens kept; 0 is off."),
    "min_p": (float, "Least share of the best token's probability; 0 is off."),
    "repetition_penalty": (float, "Above 1 discourages repetition."),
    "presence_penalty": (float, "Taken off tokens that were generated."),
    "frequency_penalty": (float, "The same for each time they were."),
    "seed": (int, "Same seed, same request: same text."),
}


def sampling_options(function: Function) -> Function:
    """Adds the flags, ``--stop`` and ``--model``; the command gets them as keyword arguments."""
    stop = click.option("--stop", multiple=True, help="Text that ends the answer; may be given several times.")
    function = click.option("--model", help="Model of the server. Default: its first for this task.")(stop(function))
    for name, (kind, text) in reversed(OPTIONS.items()):
        function = click.option(f"--{name.replace('_', '-')}", type=kind, help=text)(function)
    return function


def fields(given: dict[str, Any]) -> dict[str, Any]:
    """What to send: only what was given, since the server has its own defaults."""
    return {name: list(value) if name == "stop" else value for name, value in given.items() if value not in (None, ())}
