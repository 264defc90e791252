"""What a model folder holds, told from its files alone before anything is loaded."""
