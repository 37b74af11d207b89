"""Run the web process: `python -m gateway.serve --port 8000`."""

from __future__ import annotations

import argparse

import uvicorn

from gateway.logs import configure_logs


def main() -> None:
    """Serve until told to stop. The environment says what; see gateway.settings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    configure_logs()
    uvicorn.run(
        "gateway.app:create_app",
        factory=True,
        host=arguments.host,
        port=arguments.port,
        loop="uvloop",
        http="httptools",
        # Addresses hold references: the access log would be a list of who looked at what.
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
