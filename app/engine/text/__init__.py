"""From tokens to text that can be sent."""
