"""What Python, the C library and Linux do that a server must know of."""
