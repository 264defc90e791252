"""What enters linear layers, as far as their weights depend on it."""
