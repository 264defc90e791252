"""LangChain's embeddings of OpenAI's kind: documents, a query, fewer dimensions."""

from __future__ import annotations

from asking import TEXTS, require_same_direction, vectors
from langchain_openai import OpenAIEmbeddings
from telling import KEY, URL, tell

SERVER = {"base_url": f"{URL}/v1", "api_key": KEY, "model": "vectors", "check_embedding_ctx_length": False}
embeddings = OpenAIEmbeddings(**SERVER)
require_same_direction(embeddings.embed_documents(TEXTS), vectors())
require_same_direction([embeddings.embed_query(TEXTS[1])], vectors()[1:2])
assert len(OpenAIEmbeddings(**SERVER, dimensions=8).embed_query(TEXTS[1])) == 8
tell("langchain-openai", "/v1/embeddings")
