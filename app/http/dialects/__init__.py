"""Conversations: how one is answered, and the APIs that are translated onto that, one module in and one out."""
