"""Models that are named by their id at a hub."""
