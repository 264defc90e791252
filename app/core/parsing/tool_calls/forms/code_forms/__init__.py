"""Forms in which calls are written as a programming language's."""
