"""The forms in which families write tool calls, one module each."""
