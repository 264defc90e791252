"""A request while it is worked on: admitted, planned, submitted, running."""
