"""Anthropic's Messages API: its bodies, its answers and its events, on the one chat engine."""
