"""How packages are made, by a process of its own where a server runs."""
