"""``forklift text``: labels, scores, entities, answers and texts made of texts, a line each, from a running server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from app.cli.server_connection import failure, key_option, make_server, url_option
from app.client import Client, ClientError
from app.core.logs.printable import printable

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group("text")
def command() -> None:
    """Classify, rerank, find entities, answer, translate, summarize: a line for each result, best first."""


def of_server(function: Command) -> Command:
    """``--url``, ``--api-key``, ``--model``."""
    model = click.option("--model", help="Model of the server. Default: its first for this task.")
    return url_option(key_option(model(function)))


@contextmanager
def asking(url: str, api_key: str | None) -> Iterator[Client]:
    """The server's client; what it refuses is one line."""
    server = make_server(url, api_key)
    try:
        yield Client(server.url, server.api_key)
    except ClientError as error:
        raise failure(error, server.url) from None


def write(score: float, *words: str) -> None:
    """A line: the score, then the words, with tabs between them."""
    click.echo("\t".join([f"{score:.4f}", *map(printable, words)]))


@command.command("classify")
@click.argument("text")
@of_server
@click.option("--top-k", default=5, show_default=True, help="Labels.")
def classify(text: str, url: str, api_key: str | None, model: str | None, top_k: int) -> None:
    """Say which of the model's labels fit TEXT."""
    with asking(url, api_key) as client:
        for one in client.classify(text, top_k, model=model)[0]:
            write(one.score, one.label)


@command.command("zero-shot")
@click.argument("text")
@click.argument("labels", nargs=-1, required=True)
@of_server
@click.option("--multi-label", is_flag=True, help="Each label by itself; else their scores sum to 1.")
def zero_shot(
    text: str, labels: tuple[str, ...], url: str, api_key: str | None, model: str | None, multi_label: bool
) -> None:
    """Say which of LABELS fit TEXT."""
    with asking(url, api_key) as client:
        for one in client.zero_shot(text, list(labels), multi_label=multi_label, model=model):
            write(one.score, one.label)


@command.command("rerank")
@click.argument("query")
@click.argument("documents", nargs=-1, required=True)
@of_server
@click.option("--top-n", type=int, help="Best documents. Default: all.")
def rerank(
    query: str, documents: tuple[str, ...], url: str, api_key: str | None, model: str | None, top_n: int | None
) -> None:
    """Put DOCUMENTS in the order in which they fit QUERY."""
    with asking(url, api_key) as client:
        for one in client.rerank(query, list(documents), top_n, model=model):
            write(one.score, documents[one.index] if one.index < len(documents) else str(one.index))


@command.command("entities")
@click.argument("text")
@of_server
def entities(text: str, url: str, api_key: str | None, model: str | None) -> None:
    """Find what is named in TEXT."""
    with asking(url, api_key) as client:
        for one in client.entities(text, model=model):
            write(one.score, one.kind, one.word if one.start is None else text[one.start : one.end])


@command.command("answer")
@click.argument("question")
@click.argument("context")
@of_server
@click.option("--top-k", default=1, show_default=True, help="Answers.")
def answer(question: str, context: str, url: str, api_key: str | None, model: str | None, top_k: int) -> None:
    """Answer QUESTION with words of CONTEXT."""
    with asking(url, api_key) as client:
        for one in client.answer(question, context, top_k, model=model):
            write(one.score, one.text)


@command.command("translate")
@click.argument("texts", nargs=-1, required=True)
@of_server
@click.option("--from", "src_lang", help="Language of the texts, as the model names it.")
@click.option("--to", "tgt_lang", help="Language to translate into, as the model names it.")
def translate(
    texts: tuple[str, ...], url: str, api_key: str | None, model: str | None, src_lang: str | None, tgt_lang: str | None
) -> None:
    """Say TEXTS in another language, a line each."""
    with asking(url, api_key) as client:
        for one in client.translate(list(texts), tgt_lang, src_lang, model=model):
            click.echo(printable(one))


@command.command("summarize")
@click.argument("texts", nargs=-1, required=True)
@of_server
def summarize(texts: tuple[str, ...], url: str, api_key: str | None, model: str | None) -> None:
    """Say TEXTS in fewer words, a line each."""
    with asking(url, api_key) as client:
        for one in client.summarize(list(texts), model=model):
            click.echo(printable(one))
