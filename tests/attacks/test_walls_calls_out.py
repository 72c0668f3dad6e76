"""A recipe taken over by an upload sends what it reads to somebody."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.support.walled import Walled


def test_no_connection_is_ever_made(walled: Walled, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as named,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        port = tcp.getsockname()[1]
        udp.bind(("127.0.0.1", port))
        named.bind(path)
        abstract.bind("\0" + path)
        for listener in (named, abstract):
            listener.listen()
        value = walled.value("caller", {"port": port, "path": path})
        if not walled.calls_are_walled:
            pytest.skip("no system call filter on this machine")
        assert value["done"] == []
        for listener in (tcp, named, abstract):
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()
        udp.setblocking(False)
        with pytest.raises(BlockingIOError):
            udp.recv(100)


def test_the_listeners_would_have_heard_it(tmp_path: Path) -> None:
    """The same recipe without walls: the test above can fail."""
    from worker.sandbox.inline import run_inline

    with socket.create_server(("127.0.0.1", 0)) as tcp:
        given = {"port": tcp.getsockname()[1], "path": str(tmp_path / "socket")}
        with run_inline(
            "caller", given, {}, on_message=lambda *_: None, recipes="tests.attacks.hostile"
        ) as result:
            assert "tcp" in result.value["done"]
        connection, _ = tcp.accept()
        with connection:
            assert connection.recv(100) == b"hostile"
