"""The decode step as native code: made by torch's inductor in a process of its own, kept in a folder."""
