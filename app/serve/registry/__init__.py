"""How a server tells a registry of itself: what it says, which of its workers does, and where it is written."""
