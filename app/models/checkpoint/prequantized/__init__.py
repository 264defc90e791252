"""Checkpoints that were quantised before they were published: read here, by no vendor's library."""
