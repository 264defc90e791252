"""Body of ``/markdown``."""

from __future__ import annotations

from pydantic import Field

from app.http.schemas.strict import StrictBody

# Half a second of one thread for the worst texts found.
MAX_MARKDOWN_CHARS = 16_000


class MarkdownBody(StrictBody):
    """A text to be shown in a browser."""

    text: str = Field(max_length=MAX_MARKDOWN_CHARS, description="Markdown, as models write it.")
