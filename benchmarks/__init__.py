"""Measurements. Each module prints a table for people and one JSON line; none is a test."""
