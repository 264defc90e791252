"""The gRPC port, where there is to be one: is what it needs installed, and its address free?"""

from __future__ import annotations

from app.cli.checking.findings import Finding, Findings, Situation
from app.core.errors import StartError
from app.core.parsing.addresses import split_host_port
from app.core.system.extras import require_extra
from app.serve.connections.listening import check_addresses


def check(situation: Situation) -> Findings:
    """Nothing where no port is set."""
    address = situation.settings.grpc_bind
    if not address:
        return
    try:
        require_extra("grpc", "GRPC_BIND")
        check_addresses([split_host_port(address)], "GRPC_BIND")
    except StartError as error:
        yield Finding("grpc", "fault", str(error), "as it says, or leave FORKLIFT_GRPC_BIND out")
    else:
        yield Finding("grpc", "ok", f"{address} is free")
