"""Generation: which sequences run, what a step does, and how one sequence ends."""
