"""The check at a load: reference, features, steps, and the ladder that chooses among them."""
