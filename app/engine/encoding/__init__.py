"""Encoders: texts in, what their heads give out, many to a pass."""
