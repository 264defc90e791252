"""Packages that a server has made while it serves: a child that compiles, and the change to what it made."""
