"""JSON schemas of callers, read before any grammar is made of them: pure Python, bounded, on HTTP threads."""
