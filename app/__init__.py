"""Forklift: serves Hugging Face transformers models as JSON over HTTP, one per Gunicorn worker."""

__version__ = "0.2.0"
