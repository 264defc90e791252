"""The operator's chat template (``FORKLIFT_CHAT_TEMPLATE``): read and parsed. The master and the inference thread."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from app.core.errors import ModelLoadError
from app.core.system.small_files import read_small_file, why_unreadable

MAX_TEMPLATE_BYTES = 1_000_000


class _Generation(Extension):
    """``{% generation %}`` marks what a model wrote; transformers' own extension renders what is in it."""

    def __init__(self, environment: Environment):
        super().__init__(environment)
        self.tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def read_template(path: Path) -> str:
    """The Jinja template in a file. Raises ``ModelLoadError`` where there is none or it does not parse."""
    try:
        text = read_small_file(path, MAX_TEMPLATE_BYTES).decode("utf-8")
        Environment(extensions=["jinja2.ext.loopcontrols", _Generation]).parse(text)
    except OSError as error:
        reason = why_unreadable(path, error)
        raise ModelLoadError(f"FORKLIFT_CHAT_TEMPLATE: cannot read {path}: {reason}") from error
    except (TemplateSyntaxError, UnicodeDecodeError, RecursionError) as error:
        raise ModelLoadError(f"FORKLIFT_CHAT_TEMPLATE: {path} is not a Jinja template: {error}") from error
    return text
