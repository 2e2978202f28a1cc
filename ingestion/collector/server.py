"""The collector's HTTP server."""

import socket
from contextlib import closing

from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels

from ingestion.settings import Address, Settings

MOST_WAITING = 4_096
"""Connections that may wait to be accepted."""
STOP_SECONDS = 15
"""After a signal: longer than the event log may take."""


def serve(settings: Settings) -> None:
    """Serves until a signal ends it; requests that came before are answered. FOOTFALL_POSTGRES must name a server."""
    Granian(
        "ingestion.collector.app:app_from_environment",
        factory=True,
        interface=Interfaces.ASGI,
        address=settings.collector.host,
        port=settings.collector.port,
        backlog=MOST_WAITING,
        log_level=LogLevels.warning,
        log_access=False,  # an address is nobody's business
        websockets=False,
        workers_kill_timeout=STOP_SECONDS,
    ).serve()


class PortInUse(Exception):
    """Nobody can listen there. The message names the setting."""


def refuse_port_in_use(address: Address, setting: str) -> None:
    """Raises PortInUse where a server could not listen: servers of workers would say so late, or not at all."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with closing(socket.socket(family)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as problem:
            raise PortInUse(
                f"cannot listen at {address}: {problem.strerror}. Set {setting} to another host:port"
            ) from None
