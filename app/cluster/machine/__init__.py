"""One machine's part of a cluster: Ray's processes here, the head's interface, what it tells."""
