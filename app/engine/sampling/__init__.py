"""How the next token of a row is chosen."""
