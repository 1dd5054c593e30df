"""Serve a built site on this machine only."""

from __future__ import annotations

import errno
import sys
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["PortInUse", "serve", "server"]

HOST = "127.0.0.1"


class PortInUse(ValueError):
    """Something else listens on the port."""


class _Handler(SimpleHTTPRequestHandler):
    """Files of the site, always fresh, no listings, no log lines."""

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def list_directory(self, path: Any) -> None:
        self.send_error(HTTPStatus.NOT_FOUND, "No such page")

    def log_message(self, format: str, *args: Any) -> None:
        """Stay quiet: the terminal belongs to the reader."""


def server(out: Path, port: int) -> ThreadingHTTPServer:
    """Return a server of ``out`` that already holds its port.

    Args:
        out: A built site.
        port: 1 to 65535, or 0 for any that is free.

    Raises:
        PortInUse: The port is taken.
        ValueError: No such port number, or no site in ``out``.
        PermissionError: Ports below 1024 belong to the administrator.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be from 0 (any free one) to 65535, got {port}")
    if not (out / "index.html").is_file():
        raise ValueError(f"{out} holds no site; `gradworks report --out {out}` makes one")
    try:
        return ThreadingHTTPServer((HOST, port), partial(_Handler, directory=str(out.resolve())))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"port {port} on {HOST} is in use; choose another, or 0 for any that is free"
            ) from error
        if error.errno == errno.EACCES:
            raise PermissionError(
                f"port {port} needs the administrator; choose one from 1024 up"
            ) from error
        raise


def serve(out: Path, port: int) -> None:
    """Serve ``out`` on 127.0.0.1 until Ctrl-C.

    Args:
        out: A built site.
        port: 1 to 65535, or 0 for any that is free.

    Raises:
        PortInUse: The port is taken.
        ValueError: No such port number, or no site in ``out``.
    """  # noqa: DOC502
    try:
        with server(out, port) as running:
            address = f"http://{HOST}:{running.server_address[1]}/"
            sys.stderr.write(f"{address} (Ctrl-C ends)\n")
            sys.stderr.flush()
            running.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        sys.stderr.write("\n")
