"""What ``forklift doctor`` looks at: each module checks one thing and yields findings of one line. No click."""
