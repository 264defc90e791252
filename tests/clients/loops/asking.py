"""What the programs about tasks of texts share: a plain request, with which they compare what their client gives.

Runs in the clients' own environment; knows nothing of the project.
"""

from __future__ import annotations

import json
import math
from urllib.request import Request, urlopen

from telling import KEY, URL

TEXTS = ["a man is reading a book", "the cat sat on the mat", "open the file and read it"]
QUERY = "who is reading"


def asked(path: str, **body: object) -> dict:
    """The answer of a route, without any client."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    with urlopen(Request(URL + path, json.dumps(body).encode(), headers), timeout=60) as answer:
        return json.load(answer)


def vectors() -> list[list[float]]:
    """Of ``TEXTS``, as ``/v1/embeddings`` gives them."""
    return [one["embedding"] for one in asked("/v1/embeddings", model="vectors", input=TEXTS)["data"]]


def ranks() -> list[int]:
    """Places of ``TEXTS``, the best first."""
    found = asked("/rerank", model="ranks", query=QUERY, documents=TEXTS)["results"]
    return [one["index"] for one in found]


def require_same_direction(found: list[list[float]], expected: list[list[float]]) -> None:
    """Cosines above 1 - 1e-5."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        cosine = sum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))
        assert cosine > 1 - 1e-5, cosine
