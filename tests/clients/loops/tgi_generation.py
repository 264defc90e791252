"""text-generation-inference's client: whole with details, streamed, drawn."""

from __future__ import annotations

from telling import KEY, URL, tell
from text_generation import Client

client = Client(URL, headers={"Authorization": f"Bearer {KEY}"}, timeout=60)
whole = client.generate("def load(", max_new_tokens=8)
assert whole.details.generated_tokens == 8 and len(whole.details.tokens) == 8
pieces = list(client.generate_stream("def load(", max_new_tokens=8))
assert pieces[-1].generated_text == whole.generated_text and len(pieces) == 8
drawn = [client.generate("def load(", max_new_tokens=8, do_sample=True, seed=4).generated_text for _ in range(2)]
assert drawn[0] == drawn[1]
tell("text-generation", "/generate", "/generate_stream")
