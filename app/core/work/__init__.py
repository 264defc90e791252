"""What is asked of a model, and what comes back of it."""
