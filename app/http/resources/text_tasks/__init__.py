"""Routes of the tasks of texts, ours and the ones that peers have for the same work."""
