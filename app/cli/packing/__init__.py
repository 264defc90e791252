"""What ``forklift pack`` makes: a kit for a machine without a network. No click."""


class PackError(Exception):
    """The kit cannot be made, or is not what it was; one line."""
