"""What the code of a compiled step or pass is made for."""
