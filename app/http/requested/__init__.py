"""From a validated body to what is asked of which model, whichever door it came by."""
