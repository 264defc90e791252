"""OpenAI's Responses API, without a store: its items, its answers and its events, on the one chat engine."""
