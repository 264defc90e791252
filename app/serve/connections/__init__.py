"""Sockets of callers: read, written and closed without waiting for any of them."""
