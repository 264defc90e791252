"""Packages that a server has made while it serves: the process that compiles, and the change to what it made."""
