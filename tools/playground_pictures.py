"""Pictures of every tab of a running server's playground: ``python -m tools.playground_pictures URL FOLDER``.

Writes ``playground-tabs-light.png``, ``-dark.png`` and ``-narrow.png``, each a sheet of the tabs of all models. Needs
Debian's Chromium, playwright and Pillow; a server with a model for each task shows the most.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

# Width, height, scheme, and pictures in a row.
MODES: dict[str, tuple[int, int, Any, int]] = {
    "light": (1000, 720, "light", 3),
    "dark": (1000, 720, "dark", 3),
    "narrow": (390, 780, "light", 6),
}
SETTLE_MS = 300
SHEET_WIDTH, GAP, NUM_COLOURS = 1500, 12, 48


def tabs_of(browser: Any, url: str, width: int, height: int, scheme: str) -> list[Image.Image]:
    """A picture of each tab."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.goto(url)
    page.wait_for_selector("#tabs button")
    pictures: dict[str, Image.Image] = {}
    for model in [option.get_attribute("value") for option in page.locator("#models option").all()]:
        page.select_option("#models", model)
        page.wait_for_timeout(SETTLE_MS)
        for tab in page.get_by_role("tab").all():
            if (title := tab.inner_text()) not in pictures:
                tab.click()
                pictures[title] = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    page.close()
    return list(pictures.values())


def sheet_of(pictures: list[Image.Image], num_columns: int) -> Image.Image:
    """All of them on one page, in few colours."""
    width = (SHEET_WIDTH - GAP) // num_columns - GAP
    height = round(pictures[0].height * width / pictures[0].width)
    num_rows = -(-len(pictures) // num_columns)
    sheet = Image.new("RGB", (SHEET_WIDTH, num_rows * (height + GAP) + GAP), "#808080")
    for at, picture in enumerate(pictures):
        place = (GAP + at % num_columns * (width + GAP), GAP + at // num_columns * (height + GAP))
        sheet.paste(picture.resize((width, height), Image.Resampling.LANCZOS), place)
    return sheet.quantize(NUM_COLOURS)


def main(url: str, folder: Path) -> None:
    """Write the three sheets."""
    with sync_playwright() as api:
        browser = api.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        for name, (width, height, scheme, num_columns) in MODES.items():
            sheet = sheet_of(tabs_of(browser, url, width, height, scheme), num_columns)
            sheet.save(folder / f"playground-tabs-{name}.png", optimize=True)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
