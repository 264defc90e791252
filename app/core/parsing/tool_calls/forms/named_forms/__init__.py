"""Forms in which a call's name stands in front of its arguments, which are JSON."""
