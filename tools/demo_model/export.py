"""Writes a model and its tokenizer as a folder that transformers loads without a hub.

Files are replaced one by one and atomically, for readers that work on the folder meanwhile.
"""

import json
import tempfile
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from tools.demo_model.tokenizer import END_OF_TEXT, IM_END, MAX_LENGTH_TOKENS, VOCAB_SIZE

# So small a model goes round in circles without it; from 1.15 on holes in known functions are filled less often.
REPETITION_PENALTY = 1.1


def model_config() -> Qwen2Config:
    """The shape: about 12.5 million parameters."""
    return Qwen2Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        intermediate_size=1024,
        max_position_embeddings=MAX_LENGTH_TOKENS,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
        initializer_range=0.02,
    )


def generation_config(tokenizer: PreTrainedTokenizerFast) -> GenerationConfig:
    ends = tokenizer.convert_tokens_to_ids([IM_END, END_OF_TEXT])
    return GenerationConfig(
        eos_token_id=ends, pad_token_id=ends[1], do_sample=False, repetition_penalty=REPETITION_PENALTY
    )


def export(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save a bfloat16 copy of the model and its tokenizer into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    copy = Qwen2ForCausalLM(model_config())
    copy.load_state_dict(model.state_dict())
    copy = copy.to(torch.bfloat16)
    copy.generation_config = generation_config(tokenizer)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        copy.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        _name_tokenizer_class(Path(temporary) / "tokenizer_config.json")
        for file in sorted(Path(temporary).iterdir()):
            file.chmod(0o644)
            file.replace(folder / file.name)


def _name_tokenizer_class(path: Path) -> None:
    """Names the class that AutoTokenizer takes for qwen2 and drops notes on where it was loaded from."""
    config = json.loads(path.read_text())
    for key in ("is_local", "local_files_only", "backend"):
        config.pop(key, None)
    config |= {"tokenizer_class": "Qwen2Tokenizer", "bos_token": None}
    path.write_text(json.dumps(config, indent=2) + "\n")
