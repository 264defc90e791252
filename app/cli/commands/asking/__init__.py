"""Commands that ask a running server for what its models do."""
