"""``POST /markdown``: what a model wrote becomes markup, and nothing that it wrote is markup already."""

from __future__ import annotations

import pytest

from app.http.schemas.markdown_body import MAX_MARKDOWN_CHARS


def html_of(client, text):
    answer = client.post("/markdown", json={"text": text})
    assert answer.status_code == 200
    return answer.get_json()["html"]


def test_markdown_becomes_markup(client):
    made = html_of(client, "# Title\n\na **bold** word\n\n```py\nx < 1\n```\n\n| a |\n|--:|\n| 1 |\n")
    assert "<h1>Title</h1>" in made and "<strong>bold</strong>" in made
    assert '<pre><code class="language-py">x &lt; 1\n</code></pre>' in made
    assert "<td>1</td>" in made, "no style of its own"


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "a <img src=x onerror=alert(1)> b",
        "[x](javascript:alert(1))",
        "[x](data:text/html,<script>alert(1)</script>)",
        "![x](http://example.com/x.png)",
        '<http://example.com/" onclick="x>',
        '```"><script>alert(1)</script>\nx\n```',
    ],
)
def test_nothing_that_was_written_acts(client, text):
    made = html_of(client, text)
    assert not any(tag in made for tag in ("<script", "<img", 'href="javascript', 'href="data', '" onclick'))


def test_a_text_has_a_bound(client):
    answer = client.post("/markdown", json={"text": "[" * (MAX_MARKDOWN_CHARS + 1)})
    assert answer.status_code == 400 and answer.get_json()["error"]["param"] == "text"
    assert client.post("/markdown", json={"text": "[" * MAX_MARKDOWN_CHARS}).status_code == 200
