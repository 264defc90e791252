"""The head's HTTP interface (Ray's dashboard): what is deployed and what runs. Needs no Ray here."""

from __future__ import annotations

from typing import Any

import requests

from app.cluster.scale_error import ScaleError

TIMEOUT_S = 10.0
# The head answers a deployment once it has checked it.
DEPLOY_TIMEOUT_S = 60.0
MAX_SHOWN = 300


class HeadError(ScaleError):
    """The head did not do or tell what it was asked; it may the next time."""


class Head:
    """``url`` is the dashboard's; ``token`` the cluster's."""

    def __init__(self, url: str, token: str | None):
        self.url = url.rstrip("/")
        self._session = requests.Session()
        # The head is on this machine or beside it: a proxy of the environment would get the token.
        self._session.trust_env = False
        if token:
            self._session.headers["Authorization"] = f"Bearer {token}"

    def is_there(self) -> bool:
        """Whether it answers at all."""
        try:
            self._ask("GET", "/api/version")
        except HeadError:
            return False
        return True

    def deploy(self, config: dict[str, Any]) -> None:
        """Have Serve bring up what ``config`` says. Raises ``HeadError``."""
        self._ask("PUT", "/api/serve/applications/", json=config, timeout=DEPLOY_TIMEOUT_S)

    def remove_all(self) -> None:
        """Take down every application and the proxies. Raises ``HeadError``."""
        self._ask("DELETE", "/api/serve/applications/", timeout=DEPLOY_TIMEOUT_S)

    def serve_details(self) -> dict[str, Any]:
        """What Serve tells of proxies, applications and replicas. Raises ``HeadError``."""
        return dict(self._ask("GET", "/api/serve/applications/").json())

    def nodes(self) -> list[dict[str, Any]]:
        """Ray's nodes, dead ones too. Raises ``HeadError``."""
        found = self._ask("GET", "/api/v0/nodes?detail=1&limit=1000").json()
        return list(found["data"]["result"]["result"])

    def _ask(self, method: str, path: str, timeout: float = TIMEOUT_S, **options: Any) -> requests.Response:
        try:
            answer = self._session.request(method, self.url + path, timeout=timeout, **options)
        except requests.RequestException as error:
            raise HeadError(f"no answer from the head at {self.url}: {type(error).__name__}") from None
        if answer.status_code in (401, 403):
            raise ScaleError(f"the head at {self.url} wants the cluster's token (RAY_AUTH_TOKEN or ~/.ray/auth_token)")
        if answer.status_code >= 400:
            kind = HeadError if answer.status_code >= 500 else ScaleError
            raise kind(f"the head at {self.url} answered {answer.status_code}: {_last_line(answer)}")
        return answer


def _last_line(answer: requests.Response) -> str:
    """What a traceback, which may be quoted in JSON, ends with."""
    lines = answer.text.replace("\\n", "\n").strip().splitlines()
    return lines[-1][:MAX_SHOWN] if lines else "nothing"
