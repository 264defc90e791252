"""Grammars in processes of their own: a stranger's program may take time, memory or abort, but only its own."""
