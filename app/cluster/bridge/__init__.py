"""A WSGI application behind a server that speaks ASGI, with what Gunicorn's worker gives it: deadlines and bounds."""
