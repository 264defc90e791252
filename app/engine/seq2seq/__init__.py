"""Encoder-decoder models: texts from texts, by transformers' `generate`."""
