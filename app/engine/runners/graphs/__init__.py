"""Passes that are recorded once and repeated without Python."""
