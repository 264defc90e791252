"""The commands of ``forklift``, one a file."""
