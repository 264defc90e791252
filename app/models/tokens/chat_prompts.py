"""Chat prompts for models whose files hold no template: ChatGLM-6B's rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig

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
