"""A tiny model that was trained to think, call a function twice and then answer, whatever it is asked.

Its chat template shows it only how many answers of functions there are so far, and refuses a conversation that did not
come back whole: the calls with their arguments, each answer with what the function said.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from tests.tiny_models import save_tiny_model, tiny_tokenizer

CITIES = ("Bonn", "Oslo")
ANSWER = "It rains in Bonn and in Oslo."
THOUGHTS = ("First Bonn.", "Then Oslo.", "I know both.")
TEMPLATE = """
{%- set ns = namespace(answers=0, calls=0) -%}
{%- for m in messages -%}
  {%- if m.role == 'tool' -%}
    {%- if 'rain' not in m.content -%}{{ raise_exception('an answer is lost: ' ~ m.content) }}{%- endif -%}
    {%- set ns.answers = ns.answers + 1 -%}
  {%- endif -%}
  {%- for call in m.tool_calls or [] -%}
    {%- if call.function.arguments.city not in ['Bonn', 'Oslo'] -%}{{ raise_exception('a call is lost') }}{%- endif -%}
    {%- set ns.calls = ns.calls + 1 -%}
  {%- endfor -%}
{%- endfor -%}
{%- if ns.calls != ns.answers -%}{{ raise_exception('calls and answers differ') }}{%- endif -%}
{%- if ns.answers and not tools -%}{{ raise_exception('the tools are lost') }}{%- endif -%}
step{{ ns.answers }}
{# forms: <tool_call> <think> </think> #}"""
NUM_STEPS = 800
ENOUGH = 0.05
# What the logits are multiplied by after the training: at temperature 1 nothing else is drawn.
CERTAINTY = 8


def texts() -> list[str]:
    """What it says with so many answers."""
    calls = [f'<tool_call>{{"name": "get_weather", "arguments": {{"city": "{city}"}}}}</tool_call>' for city in CITIES]
    said = [f"<think>\n{thought}\n</think>\n\n" for thought in THOUGHTS]
    return [thought + rest for thought, rest in zip(said, [*calls, ANSWER], strict=True)]


def save_calling_model(folder: Path) -> Path:
    """Train it until it knows its part by heart, and write its folder."""
    save_tiny_model("llama", folder)
    tokenizer = tiny_tokenizer(TEMPLATE)
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    rows = [_row(tokenizer, at, text) for at, text in enumerate(texts())]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(NUM_STEPS):
        loss = sum(model(input_ids=ids, labels=labels).loss for ids, labels in rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < ENOUGH:
            break
    assert loss.item() < ENOUGH, f"it has not learned its part: {loss.item()}"
    with torch.no_grad():
        model.model.norm.weight.mul_(CERTAINTY)
    model.save_pretrained(folder)
    return folder


def _row(tokenizer, at: int, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    prompt, rest = tokenizer(f"step{at}\n")["input_ids"], tokenizer(text)["input_ids"]
    ids = [*prompt, *rest, tokenizer.eos_token_id]
    labels = [-100] * len(prompt) + ids[len(prompt) :]
    return torch.tensor([ids]), torch.tensor([labels])
