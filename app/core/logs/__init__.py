"""The log: how records look, and how they are written."""
