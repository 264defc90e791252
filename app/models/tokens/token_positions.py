"""Positions of a text's tokens, for models whose own pass counts others than transformers' ``generate`` gives them.

RoBERTa's kind counts from behind the id that pads and leaves out tokens that pad; ``generate`` counts all from 0 and
says so. Who asks such a model gets what ``generate`` answers, here as there.
"""

from __future__ import annotations

import inspect

import torch
from transformers import PreTrainedModel


def counts_from_tokens(model: PreTrainedModel) -> bool:
    """Whether ``model`` makes positions of the tokens where it is given none."""
    takes_positions = "position_ids" in inspect.signature(type(model).forward).parameters
    return takes_positions and any(hasattr(one, "create_position_ids_from_input_ids") for one in model.modules())


def plain_positions(model: PreTrainedModel, token_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a pass over ``token_ids`` ``(1, num_tokens)`` needs beside them to count as ``generate`` does."""
    if not counts_from_tokens(model):
        return {}
    return {"position_ids": torch.arange(token_ids.shape[1], device=token_ids.device)[None]}
