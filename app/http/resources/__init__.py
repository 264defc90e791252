"""Flask-RESTful resources, one module per family of routes."""
