"""Cohere's client, both of its versions of the route: ranks, the best alone, a refusal as its own error."""

from __future__ import annotations

import cohere
from asking import QUERY, TEXTS, ranks
from telling import KEY, URL, tell

for client in (cohere.Client(api_key=KEY, base_url=URL), cohere.ClientV2(api_key=KEY, base_url=URL)):
    found = client.rerank(model="ranks", query=QUERY, documents=TEXTS)
    assert [one.index for one in found.results] == ranks()
    assert [
        one.index for one in client.rerank(model="ranks", query=QUERY, documents=TEXTS, top_n=1).results
    ] == ranks()[:1]
    try:
        client.rerank(model="ranks", query=QUERY, documents=[])
    except cohere.BadRequestError as error:
        assert "documents" in str(error.body), error.body
    else:
        raise AssertionError("no documents were ranked")
tell("cohere", "/v1/rerank", "/v2/rerank")
