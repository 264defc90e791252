"""What answers look like, whole and streamed."""
