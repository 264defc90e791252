"""Debian's Chromium on pages of the scripted double; skipped where it or playwright is missing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.http.application.factory import create_app
from tests.contract.describing import RoomyModel
from tests.contract.doubles import World
from tests.contract.loopback import serving
from tests.waiting import wait_until

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """One browser with a fresh profile for all tests here.

    Not for the whole session: while it lives, playwright's event loop runs on this thread, and
    no other test could start one.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as api:
        folder: Path = tmp_path_factory.mktemp("profile")
        context = api.chromium.launch_persistent_context(
            folder, executable_path=CHROMIUM, args=FLAGS, headless=True, viewport={"width": 1200, "height": 900}
        )
        context.set_default_timeout(20_000)
        yield context
        context.close()


class Tab:
    """A page, with what it asked for and what it complained about."""

    def __init__(self, browser: object, url: str, path: str):
        self.url = url
        self.requested: list[str] = []
        self.complaints: list[str] = []
        self.page = browser.new_page()
        self.page.on("request", lambda request: self.requested.append(request.url))
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(url + path)

    def _note(self, message: object) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def assert_clean(self) -> None:
        """Nothing was asked of other servers, and nothing was refused or failed."""
        assert all(one.startswith((self.url, "data:")) for one in self.requested), self.requested
        assert self.complaints == []


OpenTab = Callable[..., Tab]


@pytest.fixture
def world() -> Iterator[World]:
    world = World(model=RoomyModel())
    yield world
    world.inference.stop()
    wait_until(lambda: world.num_places() == 0)


@pytest.fixture
def open_tab(browser: object, world: World) -> Iterator[OpenTab]:
    """Opens pages of the world's server, or of another application's; they are closed after the test."""
    tabs: list[Tab] = []
    with serving(create_app(world.context, ping_interval_s=0.1)) as url:

        def open_(path: str = "/", other: str | None = None) -> Tab:
            tabs.append(Tab(browser, other or url, path))
            return tabs[-1]

        yield open_
        for tab in tabs:
            tab.page.close()
