"""Grammars for tool calls, in each family's own notation."""
