"""LlamaIndex's embeddings of OpenAI's kind: a batch and a query."""

from __future__ import annotations

from asking import TEXTS, require_same_direction, vectors
from llama_index.embeddings.openai import OpenAIEmbedding
from telling import KEY, URL, tell

embedding = OpenAIEmbedding(api_base=f"{URL}/v1", api_key=KEY, model_name="vectors", max_retries=0)
require_same_direction(embedding.get_text_embedding_batch(TEXTS), vectors())
require_same_direction([embedding.get_query_embedding(TEXTS[2])], vectors()[2:])
tell("llama-index-embeddings-openai", "/v1/embeddings")
