"""What a model writes beside its answer: tool calls in its family's form, and its reasoning. Pure text, no torch."""
