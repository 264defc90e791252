"""Why a model type is served one text after the other, or not at all: a line each, read from the family's code.

A type that goes this way and is not named here has lost its engine: a test compares.
"""

from __future__ import annotations

INDEXER = "an indexer chooses the entries that a query sees, and its keys lie in a layer of its own in the cache"
BIAS_OF_CACHE = "adds a bias by position that it makes from the length of the cache, one for all rows of a pass"
OWN_STATES = "keeps states in its own modules, outside transformers' cache"
OTHERWISE = "its `generate` answers otherwise than its own forward pass: "
SERIAL: dict[str, str] = {
    "axk2": INDEXER,
    "deepseek_v32": INDEXER,
    "glm_moe_dsa": INDEXER,
    "hy_v4": INDEXER,
    "dots3_note_text": INDEXER,
    "deepseek_v4": "keeps entries compressed, and how many tokens wait for that, in layers of its own in the cache",
    "inkling2_loop_text": BIAS_OF_CACHE,
    "inkling2_text": BIAS_OF_CACHE,
    "inkling_text": BIAS_OF_CACHE,
    "minimax": "takes a cache of its own class and no other",
    "moshi": "sees all of a prompt in its first pass and the window alone in later ones, so chunks answer otherwise",
    "openai-gpt": "has no cache",
    "roformer": "turns queries and keys by positions counted from the length of the cache, one for all rows of a pass",
    "recurrent_gemma": OWN_STATES + "; `generate` begins a prompt of one token with those of the text before",
    "rwkv": OWN_STATES,
}
REFUSED: dict[str, str] = {
    "cpmant": OTHERWISE + "tokens see those behind them",
    "dory": OTHERWISE + "layers that loop find the entries of their last loop; beyond the window it fails",
    "prophetnet": "its `generate` fails in this version of transformers",
    "xlnet": OTHERWISE + "that guesses for a token that it appends",
    "xlstm": "its `generate` fails in this version of transformers",
}
