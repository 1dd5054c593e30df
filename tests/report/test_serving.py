"""The site served on this machine only."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradworks.report import site
from gradworks.report.site import serving


@pytest.fixture
def running(built: Path) -> Iterator[int]:
    with serving.server(built, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def ask(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def test_the_site_is_served(running: int) -> None:
    status, body = ask(running, "/")
    assert status == 200
    assert b"Does the claim hold?" in body
    assert ask(running, "/papers/adamp.html")[0] == 200


@pytest.mark.parametrize("path", ["/papers/", "/nothing.html", "/../../etc/passwd", "/%2e%2e/x"])
def test_nothing_else_is_served(path: str, running: int) -> None:
    assert ask(running, path)[0] == 404


def test_a_busy_port_is_named(built: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(serving.PortInUse, match=f"port {port} .* is in use; choose another"):
            site.serve(built, port)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_does_not_exist(port: int, built: Path) -> None:
    with pytest.raises(ValueError, match=f"port must be from 0 .* to 65535, got {port}"):
        site.serve(built, port)


def test_a_folder_without_a_site(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no site"):
        site.serve(tmp_path, 0)


def test_ctrl_c_ends_the_server(built: Path) -> None:
    code = "import sys; from gradworks.report import site; site.serve(sys.argv[1], 0)"
    code = code.replace("sys.argv[1]", "__import__('pathlib').Path(sys.argv[1])")
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(built)],
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background jobs ignore it, and so would their children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 0
    process.stderr.close()
