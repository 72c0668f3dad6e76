"""Tries to reach a network."""

from __future__ import annotations

import ctypes
import socket

from worker.inside.job import InsideJob


def run(job: InsideJob) -> dict[str, object]:
    port, path = job.arguments["port"], job.arguments["path"]
    tries = {
        "tcp": lambda: socket.create_connection(("127.0.0.1", port), 2).sendall(b"hostile"),
        "udp": lambda: _udp(port),
        "unix": lambda: _unix(path),
        "abstract": lambda: _unix("\0" + path),
        "listen": lambda: socket.create_server(("127.0.0.1", 0)),
        "pair": lambda: socket.socketpair(),
        "raw": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
        "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
        "names": lambda: socket.getaddrinfo("example.org", 80),
        "by number": _by_number,
        "io_uring": _io_uring,
    }
    done = []
    for name, attempt in tries.items():
        try:
            attempt()
            done.append(name)
        except OSError:
            pass
    return {"done": done}


def _udp(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.sendto(b"hostile", ("127.0.0.1", port))


def _unix(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.connect(path)


def _by_number() -> None:
    if ctypes.CDLL(None).syscall(41, 2, 1, 0) < 0:
        raise OSError("socket")


def _io_uring() -> None:
    if ctypes.CDLL(None).syscall(425, 8, ctypes.create_string_buffer(200)) < 0:
        raise OSError("io_uring_setup")
