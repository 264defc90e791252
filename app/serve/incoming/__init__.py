"""A request on its way in: its bytes, collected and looked at before a thread is spent on it."""
