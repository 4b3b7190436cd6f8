"""etcd's parties in bench/registry.py: members on loopback, and two clients of theirs.

`Gateway` speaks HTTP with the JSON gateway and is the leanest that asyncio allows: one protocol object a connection,
kept open, a request written as bytes, an answer found by its length. A connection carries one request at a time, so as
many are open as requests are on their way. Nothing is parsed that is not needed: the answer to a put only for its
status, that to a read for its value. `Grpc` speaks gRPC by grpcio, whose core is in C, over one connection; its
messages are few and small, so they are packed by hand instead of by generated code.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from bus_systems import Failed, daemon, free_port
from registry_common import VALUE, Store, key_of, serve_client

SERIALIZABLE = bytes((7 << 3, 1))
"""The field of a read that asks for what this member knows."""

LIMIT = 30.0
"""Seconds within which the members must have a leader."""


def asked(port: int, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Ask the gateway once, without hurry."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def members(stack: ExitStack, folder: Path, number: int) -> tuple[dict[str, Any], list[int]]:
    """Start so many members, wait for their leader; return what a client must know, and the process ids.

    They sync every commit, as they do by default; between them and to their clients nothing is encrypted.
    """
    ports = {f"m{each}": (free_port(), free_port()) for each in range(1, number + 1)}
    peers = ",".join(f"{name}=http://127.0.0.1:{peer}" for name, (_, peer) in ports.items())
    processes = []
    for name, (client, peer) in ports.items():
        here, there = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
        options = {
            "name": name,
            "data-dir": str(folder / name),
            "listen-client-urls": here,
            "advertise-client-urls": here,
            "listen-peer-urls": there,
            "initial-advertise-peer-urls": there,
            "initial-cluster": peers,
            "initial-cluster-state": "new",
            "logger": "zap",
            "log-level": "error",
        }
        words = [f"--{option}={value}" for option, value in options.items()]
        processes.append(daemon(stack, client, "etcd", *words))
    given_up = time.monotonic() + LIMIT
    while time.monotonic() < given_up:
        for client, _ in ports.values():
            try:
                status = asked(client, "/v3/maintenance/status", {})
            except OSError:
                continue
            if status.get("leader", "0") == status["header"]["member_id"]:
                return {"port": client}, processes
        time.sleep(0.05)
    raise Failed("the members of etcd have no leader")


class Connection(asyncio.Protocol):
    """One connection to the gateway, kept open; one request at a time."""

    def __init__(self) -> None:
        self._got = b""
        self._answer: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, problem: Exception | None) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(problem or ConnectionResetError("etcd closed the connection"))

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        """Send a request; the answer is the body."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._got += data
        head = self._got.find(b"\r\n\r\n")
        if head < 0:
            return
        place = self._got.index(b"Content-Length: ") + 16
        end = head + 4 + int(self._got[place : self._got.index(b"\r", place)])
        if len(self._got) < end or self._answer is None:
            return
        body, status, self._got = self._got[head + 4 : end], self._got[9:12], self._got[end:]
        if status == b"200":
            self._answer.set_result(body)
        else:
            self._answer.set_exception(RuntimeError(f"etcd answered {status.decode()}: {body.decode()}"))


class Gateway(Store):
    """The keys of a run behind the gateway."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Connection] = []
        self._value = base64.b64encode(VALUE.encode())

    async def put(self, number: int) -> None:
        """Write a key; it is on a majority of the disks when this returns."""
        await self._ask(b"put", b'{"key":"%s","value":"%s"}' % (self._key(number), self._value))

    async def linear(self, number: int) -> None:
        """Read a key as of now."""
        self._check(await self._ask(b"range", b'{"key":"%s"}' % self._key(number)))

    async def stale(self, number: int) -> None:
        """Read a key as this member knows it."""
        self._check(await self._ask(b"range", b'{"key":"%s","serializable":true}' % self._key(number)))

    def _key(self, number: int) -> bytes:
        return base64.b64encode(key_of(number, self.keys).encode())

    @staticmethod
    def _check(body: bytes) -> None:
        found = json.loads(body)["kvs"][0]["value"]
        assert len(base64.b64decode(found)) == len(VALUE)

    async def _ask(self, verb: bytes, body: bytes) -> bytes:
        if self._idle:
            connection = self._idle.pop()
        else:
            loop = asyncio.get_running_loop()
            connection = (await loop.create_connection(Connection, "127.0.0.1", self._port))[1]
        head = b"POST /v3/kv/%s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (verb, len(body))
        answer = await connection.ask(head + body)
        self._idle.append(connection)
        return answer


def field(number: int, content: bytes) -> bytes:
    """Return a field of a protobuf message."""
    size = len(content)
    length = bytes((size,)) if size < 128 else bytes((size & 127 | 128, size >> 7))
    return bytes((number << 3 | 2,)) + length + content


class Grpc(Store):
    """The same keys by gRPC."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._value = field(2, VALUE.encode())

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Connect."""
        from grpc import aio

        async with aio.insecure_channel(f"127.0.0.1:{self._port}") as channel:
            self._put = channel.unary_unary("/etcdserverpb.KV/Put")
            self._range = channel.unary_unary("/etcdserverpb.KV/Range")
            yield

    async def put(self, number: int) -> None:
        """Write a key; it is on a majority of the disks when this returns."""
        await self._put(self._key(number) + self._value)

    async def linear(self, number: int) -> None:
        """Read a key as of now."""
        self._check(await self._range(self._key(number)))

    async def stale(self, number: int) -> None:
        """Read a key as this member knows it."""
        self._check(await self._range(self._key(number) + SERIALIZABLE))

    def _key(self, number: int) -> bytes:
        return field(1, key_of(number, self.keys).encode())

    @staticmethod
    def _check(answer: bytes) -> None:
        assert VALUE.encode() in answer


if __name__ == "__main__":
    serve_client(lambda said: (Grpc if said.get("grpc") else Gateway)(said["port"]))
