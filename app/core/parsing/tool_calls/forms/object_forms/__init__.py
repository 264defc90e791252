"""Forms in which a call is a JSON object: its name and its arguments are members."""
