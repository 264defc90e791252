"""The Flask application: what holds for every route."""
