"""What models are for: the table of tasks, and the jobs of encoders."""
