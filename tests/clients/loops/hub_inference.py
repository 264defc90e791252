"""huggingface_hub's client, its tasks that are served here."""

from __future__ import annotations

from asking import TEXTS, asked, require_same_direction, vectors
from huggingface_hub import InferenceClient
from telling import KEY, URL, tell


def client(path: str = "") -> InferenceClient:
    return InferenceClient(model=URL + path, token=KEY, timeout=60)


# A client that nobody holds closes its streams.
writer = client()
whole = writer.text_generation("def load(", max_new_tokens=8, details=True)
assert whole.details.generated_tokens == 8
assert "".join(writer.text_generation("def load(", max_new_tokens=8, stream=True)) == whole.generated_text
require_same_direction([list(map(float, client("/embed").feature_extraction(TEXTS[0]).ravel()))], vectors()[:1])
[best] = asked("/classify", model="labels", text=TEXTS[0])
assert client("/classify").text_classification(TEXTS[0])[0].label == best["label"]
assert client("/translate").translation(TEXTS[0], src_lang="en", tgt_lang="de").translation_text is not None
tell("huggingface_hub", "/generate", "/embed", "/classify", "/translate")
