"""From the bytes of a request to a validated body."""
