"""Master and workers: how they start, are watched and end."""
