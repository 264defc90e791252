"""How layers that keep states take passes that are laid end to end."""
