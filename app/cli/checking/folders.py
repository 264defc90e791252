"""What a model folder is, from its config, its tokenizer and the headers of its weights. Imports transformers."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, PretrainedConfig

from app.core.errors import StartError
from app.models.checkpoint.gguf_loading.gguf_form import kinds_of_layers
from app.models.checkpoint.prequantized.coded_folder import CodedFolder, quantization_of, read_coded
from app.models.checkpoint.source import first_line
from app.models.folder.gguf.gguf_folder import check_gguf, gguf_file
from app.models.folder.headers import read_entries
from app.models.folder.model_folder import check_folder, weight_files
from app.models.folder.sentence import parse, read_sentence_form
from app.models.folder.tasks import detect_task
from app.models.served_model import context_size
from app.models.tokens.chat_prompts import has_rounds
from app.models.tokens.infill import Infilling


def describe(folder: Path) -> dict[str, Any]:
    """What can be told; ``fault`` says why the rest cannot."""
    row: dict[str, Any] = {"path": str(folder)}
    try:
        if (file := gguf_file(str(folder))) is not None:
            return row | of_gguf(file)
        check_folder(str(folder))
        row |= of_weights(weight_files(folder))
        if (quantization := quantization_of(folder)) is not None:
            row |= of_coded(read_coded(folder, quantization))
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        row |= of_config(folder, config)
        if row["task"] == "generate":
            row |= of_tokenizer(folder, config)
    except StartError as error:
        row["fault"] = str(error).replace(f"{folder} ", "").replace(str(folder), folder.name)
    except Exception as error:
        row["fault"] = first_line(error)
    return row


def of_gguf(file: Path) -> dict[str, Any]:
    """What the header of a GGUF file tells, without a library that reads such files."""
    header = check_gguf(file, is_installed=True)
    kinds = kinds_of_layers(header).most_common(1)
    return {
        "parameters": sum(tensor.num_values for tensor in header.tensors.values()),
        "bytes": sum(tensor.num_bytes for tensor in header.tensors.values()),
        "dtype": kinds[0][0] if kinds else "none",
        "task": "generate",
        "architecture": header.architecture,
        "context_tokens": header.own("context_length"),
        "chat": "tokenizer.chat_template" in header.metadata,
    }


def of_coded(coded: CodedFolder) -> dict[str, Any]:
    """What quantised weights mean, which their tensors' shapes do not tell."""
    return {"parameters": coded.num_values, "dtype": coded.words}


def of_weights(files: list[Path]) -> dict[str, Any]:
    """Parameters and bytes of the tensors, and the type that most parameters have."""
    parameters: Counter[str] = Counter()
    num_bytes = 0
    for file in files:
        for entry in read_entries(file).values():
            parameters[str(entry["dtype"])] += math.prod(entry["shape"])
            num_bytes += int(entry["data_offsets"][1]) - int(entry["data_offsets"][0])
    dtype = parameters.most_common(1)[0][0] if parameters else "none"
    return {"parameters": parameters.total(), "bytes": num_bytes, "dtype": dtype}


def of_config(folder: Path, config: PretrainedConfig) -> dict[str, Any]:
    """Task, class and context; a type whose code lies beside its weights would have to be trusted for more."""
    form = read_sentence_form(lambda name: parse(str(folder / name) if (folder / name).is_file() else None))
    names = config.architectures or json.loads((folder / "config.json").read_text(encoding="utf-8")).get("auto_map")
    return {
        "task": detect_task(config, is_sentence_model=form is not None),
        "architecture": next(iter(names or [config.model_type])),
        "context_tokens": context_size(config),
    }


def of_tokenizer(folder: Path, config: PretrainedConfig) -> dict[str, Any]:
    """Whether the model can chat and fill holes."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    chat = bool(tokenizer.chat_template) or has_rounds(config)
    return {"chat": chat, "infill": Infilling.of(tokenizer) is not None}
