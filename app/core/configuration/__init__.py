"""What is set from outside: the fields with their bounds, and tables of several models."""
