"""Processes: slots, admission, Gunicorn hooks and the worker class. Knows neither Flask nor torch."""
