"""The slot board that all processes share: who is admitted, who accepts, what is counted."""
