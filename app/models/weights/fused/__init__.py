"""Decoder layers with fewer, larger operations, and how it is found what they are made of."""
