"""Start the service."""

import os
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
        MatineeError: If the model cannot be opened, a package is missing, or the port is out of range.
    """
    check_installed("serve", NEEDED)
    if not 0 <= config.port < 2**16:
        raise MatineeError(f"port is {config.port}; give a number from 0 to 65535.")
    import uvicorn

    from matinee.verbs.serve.app import create_app

    source = open_source(config)
    kind = "artefact" if isinstance(source, ArtefactSource) else "run"
    print(f"serving the {kind} {source.name} at http://{config.host}:{config.port}", flush=True)
    app = create_app(lambda: open_source(config), source, os.environ.get(TOKEN) or None)
    uvicorn.run(
        app,
        host=config.host,
        port=config.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=DRAIN,
        server_header=False,
    )
