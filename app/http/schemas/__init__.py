"""Request bodies as pydantic models; the OpenAPI description is made from them."""
