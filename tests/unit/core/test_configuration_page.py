"""The configuration page says what the code does."""

from __future__ import annotations

from tools.settings_reference import PAGE, page


def test_the_page_is_what_the_settings_make_of_it():
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tools.settings_reference"
