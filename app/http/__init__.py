"""HTTP: Flask factory, schemas, resources, streaming. Never touches a model."""
