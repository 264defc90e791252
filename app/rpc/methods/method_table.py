"""All methods of the gRPC port, by their paths."""

from __future__ import annotations

from app.rpc.methods import forklift_methods, infer_methods
from app.rpc.methods.method import Method

_SERVICES: dict[str, dict[str, Method]] = {
    forklift_methods.SERVICE: forklift_methods.METHODS,
    infer_methods.SERVICE: infer_methods.METHODS,
}
SERVICES = tuple(_SERVICES)
METHODS = {f"/{service}/{name}": method for service, methods in _SERVICES.items() for name, method in methods.items()}
