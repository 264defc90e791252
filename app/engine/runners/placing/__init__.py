"""Where the tokens of a pass stand, and what each of them sees of its row."""
