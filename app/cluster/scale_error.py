"""What a command about a cluster cannot do, in one line for the operator."""

from __future__ import annotations

from app.core.errors import ForkliftError


class ScaleError(ForkliftError):
    """A plan that cannot be, or a machine that does not do its part."""
