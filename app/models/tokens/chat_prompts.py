"""Chat prompts for models whose files hold no template: ChatGLM-6B's rounds, or a template of the operator's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from app.core.errors import ModelLoadError
from app.core.system.small_files import read_small_file, why_unreadable

if TYPE_CHECKING:
    from transformers import PretrainedConfig

MAX_TEMPLATE_BYTES = 1_000_000
ROUND_MODEL_TYPES = ("chatglm", "glm")
QUESTION, ANSWER = "\u95ee\uff1a", "\u7b54\uff1a"


def has_rounds(config: PretrainedConfig) -> bool:
    """Whether a model of this config talks in rounds where it has no template."""
    return config.model_type in ROUND_MODEL_TYPES


def rounds_prompt(messages: list[dict[str, Any]]) -> str:
    """The prompt as ChatGLM-6B's own ``chat`` builds it (modeling_chatglm.py).

    Rounds count from 0, each ``[Round i]\\n\u95ee\uff1aquestion\\n\u7b54\uff1aanswer\\n``, the last one open. A first
    question stands alone, with no round around it: so the model was trained. A system message,
    which that form does not know, stands on a line of its own in front.
    """
    system = "".join(f"{message['content']}\n" for message in messages if message["role"] == "system")
    turns = [message for message in messages if message["role"] != "system"]
    if len(turns) == 1:
        return system + str(turns[0]["content"])
    text, num_round = system, 0
    for message in turns:
        if message["role"] == "user":
            text += f"[Round {num_round}]\n{QUESTION}{message['content']}\n{ANSWER}"
        else:
            text += f"{message['content']}\n"
            num_round += 1
    return text


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
