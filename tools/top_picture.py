"""Watches a running server as ``forklift top`` does and draws the last picture as a PNG, for the documentation.

Run as ``python -m tools.top_picture URL FILE``; needs chromium.
"""

from __future__ import annotations

import io
import re
import subprocess
import tempfile
import time
from pathlib import Path

import click
from rich.console import Console

from app.cli.commands.top import refresh
from app.cli.server_connection import make_server
from app.cli.watching.history import History
from app.cli.watching.server_view import frame

WIDTH = 100


@click.command()
@click.argument("url")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--seconds", default=50, show_default=True, help="How long to watch before the picture is drawn.")
def main(url: str, file: Path, seconds: int) -> None:
    """Draw FILE from the server at URL."""
    server, history = make_server(url, None), History()
    for _ in range(seconds):
        refresh(server, history)
        time.sleep(1)
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(frame(server.url, history))
    draw(console.export_svg(title="forklift top"), file)


def draw(svg: str, file: Path) -> None:
    """A PNG of an SVG that says its size in its viewBox."""
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert found is not None
    width, height = (round(float(size)) for size in found.groups())
    # Chromium would ask the internet for the font that rich names.
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL).replace("Fira Code", "DejaVu Sans Mono")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(f'<meta charset="utf-8"><body style="margin:0">{svg}', encoding="utf-8")
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--window-size={width},{height}", f"--screenshot={file.resolve()}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    main()
