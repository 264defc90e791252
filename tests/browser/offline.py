"""A program for a network namespace of its own: server and browser with nothing but loopback.

Prints what was seen as JSON. Run as ``python -m tests.browser.offline MODEL_FOLDER WORK_FOLDER``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests.browser.conftest import CHROMIUM, FLAGS, Tab
from tests.cut_off import bring_up_loopback, error_of_leaving
from tests.e2e.conftest import Forklift
from tests.service.conftest import server_starter


@contextmanager
def browser_context(profile: Path) -> Iterator[Any]:
    with sync_playwright() as api:
        context = api.chromium.launch_persistent_context(profile, executable_path=CHROMIUM, args=FLAGS, headless=True)
        context.set_default_timeout(30_000)
        yield context
        context.close()


def completed(browser: Any, url: str) -> str:
    """What the playground shows for a prompt."""
    tab = Tab(browser, url, "/")
    tab.page.fill("#prompt", "def f(")
    tab.page.click("#run")
    tab.page.locator("#timings", has_text="ended by").wait_for()
    tab.assert_clean()
    text: str = tab.page.inner_text("#output")
    return text


def described(browser: Any, url: str) -> int:
    """The number of operations that the description shows."""
    tab = Tab(browser, url, "/docs")
    tab.page.wait_for_selector("details")
    tab.assert_clean()
    count: int = tab.page.locator("details").count()
    return count


def main(model: Path, folder: Path) -> None:
    bring_up_loopback()
    starter = server_starter(folder, Forklift)
    server = next(starter)(model=model)
    try:
        with browser_context(folder / "profile") as browser:
            seen = {"playground": completed(browser, server.url), "operations": described(browser, server.url)}
    finally:
        next(starter, None)
    print(json.dumps({"outside": error_of_leaving(), **seen}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
