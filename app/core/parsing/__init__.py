"""Small notations that operators and callers write, read by pure functions."""
