"""Serve's config file as text, for those who run Ray already."""

from __future__ import annotations

from typing import Any

import yaml


def as_yaml(config: dict[str, Any]) -> str:
    """The file, in the order of ``config``."""
    text: str = yaml.safe_dump(config, sort_keys=False, width=120)
    return text
