"""Start the service."""

import os
import socket
from typing import Any

from matinee.errors import MatineeError
from matinee.verbs.export.command import check_installed
from matinee.verbs.serve.sources import ArtefactSource, open_source

NEEDED = ("fastapi", "uvicorn", "prometheus_client")
TOKEN = "MATINEE_TOKEN"  # name of the variable that holds the token of reloads
DRAIN = 30  # seconds that unanswered requests have after SIGTERM


def serve(config: Any) -> None:
    """Answer requests until SIGTERM or Ctrl-C, then finish those that have begun.

    Raises:
        MatineeError: If the model cannot be opened, a package is missing, the port is out of range, or
            another program listens on it.
    """
    check_installed("serve", NEEDED)
    if not 0 <= config.port < 2**16:
        raise MatineeError(f"port is {config.port}; give a number from 0 to 65535.")
    import uvicorn

    from matinee.verbs.serve.app import create_app

    source = open_source(config)
    kind = "artefact" if isinstance(source, ArtefactSource) else "run"
    listening = listen(config.host, config.port)
    port = listening.getsockname()[1]  # the system chooses it if config.port is 0
    print(f"serving the {kind} {source.name} at http://{config.host}:{port}", flush=True)
    app = create_app(lambda: open_source(config), source, os.environ.get(TOKEN) or None)
    settings = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=DRAIN,
        server_header=False,
    )
    uvicorn.Server(settings).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """Open the socket of the service.

    Raises:
        MatineeError: If another program listens there, or the host is not an address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]  # without the address, which Python repeats
        raise MatineeError(
            f"cannot listen on host={host} port={port}: {reason}; give another host or port."
        ) from error
