"""LangChain's reranker of Cohere's kind."""

from __future__ import annotations

import cohere
from asking import QUERY, TEXTS, ranks
from langchain_cohere import CohereRerank
from langchain_core.documents import Document
from telling import KEY, URL, tell

reranker = CohereRerank(client=cohere.ClientV2(api_key=KEY, base_url=URL), model="ranks", top_n=3)
found = reranker.compress_documents([Document(text) for text in TEXTS], QUERY)
assert [one.page_content for one in found] == [TEXTS[place] for place in ranks()]
tell("langchain-cohere", "/v2/rerank")
