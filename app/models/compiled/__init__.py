"""The decode step of one row as native code, made ahead of time by torch's inductor and kept in a folder."""
