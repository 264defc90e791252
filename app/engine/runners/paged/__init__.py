"""Passes over a cache in blocks, and the ways in which rows attend to theirs."""
