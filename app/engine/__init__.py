"""The engine: one inference thread per worker that turns jobs into tokens."""
