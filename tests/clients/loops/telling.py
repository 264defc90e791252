"""What every loop needs: where the server is, the function that is called, and how the outcome is told.

Runs in the clients' own environment, as everything in this folder; knows nothing of the project.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version

URL, KEY, MODEL = sys.argv[1], sys.argv[2], sys.argv[3]
ASK = "Does it rain in Bonn and Oslo?"
ANSWER = "It rains in Bonn and in Oslo."
CITIES = ["Bonn", "Oslo"]
called: list[str] = []


def weather_in(city: str) -> str:
    """The function behind the tool; remembers its calls."""
    called.append(city)
    return f"rain in {city}"


def require_loop(answer: object) -> None:
    """The model has called for both cities, in their order, and has answered."""
    assert called == CITIES, called
    assert answer == ANSWER, answer
    called.clear()


def tell(package: str, *routes: str) -> None:
    """All that was tried has worked."""
    print(json.dumps({"client": package, "version": version(package), "routes": routes}))
