"""The side that is dialled: one ROUTER on all adapters, and the sessions of the brokers that dialled it.

Who is heard, what is sent again and when it is over is decided by `acceptor.py` and `session.py`; here is the socket.
A ROUTER drops what it cannot deliver, so that is made an error, which means that the connection is gone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
import zmq

from ..errors import CoveyError
from . import codec
from .acceptor import Acceptor
from .guard import address_of
from .links import LINGER, QUEUE, Context
from .messages import Kind
from .port import Port, bind
from .session import Closed, Deliver, Down, Effect, Transmit
from .traffic import MOST_HOSTS, Traffic
from .trust import RateLimit
from .window import MESSAGES

PAUSE = 0.05
"""Seconds in which nothing is read after more came than `Limits.rate` allows."""


class Limits(NamedTuple):
    """What a port takes: bytes of a frame, messages in libzmq's queues, sessions at a time (0: the usual); and, for all
    connections together, messages a second and at once (0: any number). Who is above that waits in its own socket."""

    frame: int = codec.MAX_BODY + codec.MAX_HEADER
    sending: int = QUEUE
    receiving: int = MESSAGES
    sessions: int = 0
    rate: float = 0.0
    burst: float = 0.0


LIMITS = Limits()


class Callers:
    """All brokers that dialled us. A key stands for one session: it outlives connections, and is never used again.

    `on_frames(key, [header, body], user)` gets each message once and in order; `user` is the proved key of the other
    side (None without `secure`). `on_down(key, reason)` is called when a session is over, `on_closed(key)` when
    the other side closed it in good order because it does not need it: what it asked or wanted can be forgotten.
    `secure(socket)` makes the socket admit only who is trusted, and `refuses(user, frame)` says of each message,
    whatever it is, whether its sender is trusted no more. `counters` counts what was refused and lost.
    """

    def __init__(
        self,
        context: Context,
        on_frames: Callable[[bytes, list[zmq.Frame], str | None], None],
        on_down: Callable[[bytes, str], None],
        on_closed: Callable[[bytes], None] = lambda key: None,
        counters: Counter[str] | None = None,
        on_drained: Callable[[], None] | None = None,
        secure: Callable[[zmq.Socket[bytes]], None] | None = None,
        refuses: Callable[[str, zmq.Frame], bool] | None = None,
        limits: Limits = LIMITS,
        traffic: Traffic | None = None,
    ) -> None:
        self._traffic = traffic or Traffic()
        self._hosts: dict[bytes, str] = {}  # by connection
        self._context = context
        self._on_frames = on_frames
        self._on_down = on_down
        self._on_closed = on_closed
        self._on_drained = on_drained
        self._secure = secure
        self._refuses = refuses
        self._limits = limits
        self._rate = RateLimit(limits.rate, limits.burst, 1) if limits.rate else None
        self._acceptor = Acceptor(counters, limits.sessions)
        self._port: Port | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed = 0.0
        self._loop = asyncio.get_running_loop()
        self._touching = False
        self._arming = False

    def listen(self, endpoints: Sequence[str]) -> list[str]:
        """Bind to each `host:port`; return them, with the port that was found for port 0.

        Raises CoveyError when one cannot be had.
        """
        found = []
        socket: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.LINGER, LINGER)
        socket.setsockopt(zmq.SNDHWM, self._limits.sending)
        socket.setsockopt(zmq.RCVHWM, self._limits.receiving)
        socket.setsockopt(zmq.MAXMSGSIZE, self._limits.frame)
        socket.setsockopt(zmq.BACKLOG, 1024)
        socket.setsockopt(zmq.HANDSHAKE_IVL, 3000)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 30)
        socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 10)
        socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
        socket.setsockopt(zmq.TCP_MAXRT, 10_000)
        socket.setsockopt(zmq.IPV6, int(any(each.startswith("[") for each in endpoints)))
        if self._secure:
            self._secure(socket)
        for each in endpoints:
            try:
                bind(socket, f"tcp://{each}")
            except CoveyError:
                socket.close(0)
                raise
            port = socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0").rpartition(":")[2]
            found.append(f"{each.rpartition(':')[0]}:{port}")
        self._port = Port(socket, self._heard, self._on_drained)
        return found

    def send(self, key: bytes, kind: Kind, frames: list[Any], service: str = "") -> None:
        """Send header and body to that broker. Raises Overloaded, and Unreachable when its session is over."""
        self._do(self._acceptor.send(self._loop.time(), key, kind, frames, service))

    def end(self, key: bytes, reason: str) -> None:
        """End a session at once; `on_down` is called when there is one."""
        self._do(self._acceptor.end(self._loop.time(), key, reason))

    def users(self) -> dict[bytes, str]:
        """Return the proved key of each caller; "" without `secure`."""
        return {each.key: each.user for each in self._acceptor.sessions.values()}

    def user(self, key: bytes) -> str | None:
        """Return the proved key of a caller; None without `secure`, or when its session is over."""
        accepted = self._acceptor.sessions.get(int.from_bytes(key, "big"))
        return accepted.user or None if accepted else None

    def host(self, key: bytes) -> str:
        """Return the address from which a caller's connection comes, "" when it has none now."""
        accepted = self._acceptor.sessions.get(int.from_bytes(key, "big"))
        return self._hosts.get(accepted.connection or b"", "") if accepted else ""

    def heard_at(self, key: bytes) -> float | None:
        """Return when a caller was heard last, by the loop's clock; None when it has no connection now."""
        accepted = self._acceptor.sessions.get(int.from_bytes(key, "big"))
        return accepted.session.heard_at if accepted and accepted.connection is not None else None

    def state(self) -> dict[bytes, dict[str, Any]]:
        """Return for each session where it stands and what it counted (times in seconds)."""
        return {
            each.key: {
                "up": each.connection is not None,
                "waiting": each.session.waiting,
                **msgspec.structs.asdict(each.session.counters),
            }
            for each in self._acceptor.sessions.values()
        }

    def close(self) -> None:
        """Say goodbye to all and close; nobody is told."""
        self._do(self._acceptor.stop(self._loop.time()))
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._port:
            self._port.close(LINGER)
            self._port = None

    def _heard(self, frames: list[zmq.Frame]) -> None:
        if len(frames) < 2:
            self._acceptor.counters["malformed"] += 1
            return
        now, user = self._loop.time(), ""
        if self._rate and not self._rate.allow(now, ""):
            assert self._port is not None
            self._port.pause(PAUSE)
        if self._secure:
            # asked of every message: a handshake is judged once, and the key may be revoked meanwhile
            with suppress(zmq.ZMQError):
                user = str(frames[1].get("User-Id"))
            if self._refuses and self._refuses(user, frames[1]):
                return
        host = self._host_of(frames)
        if not self._traffic.lets_in(host):
            return
        if len(frames) == 2:
            self._traffic.received(host, "", len(frames[1]))
        effects = self._acceptor.heard(now, frames[0].bytes, [frames[1].bytes, *frames[2:]], user)
        self._do(effects)

    def _host_of(self, frames: list[zmq.Frame]) -> str:
        connection = frames[0].bytes
        host = self._hosts.get(connection)
        if host is None:
            if len(self._hosts) >= MOST_HOSTS:  # those that are spoken with come back with their next heartbeat
                self._hosts.clear()
            host = self._hosts[connection] = address_of(frames[1])
        return host

    def _do(self, effects: Sequence[Effect]) -> None:
        try:
            for effect in effects:
                if isinstance(effect, Transmit):
                    self._transmit(effect)
                elif isinstance(effect, Deliver):
                    assert isinstance(effect.key, bytes)
                    user = self.user(effect.key) if self._secure else None
                    self._on_frames(effect.key, effect.frames, user)
                elif isinstance(effect, Down):
                    assert isinstance(effect.key, bytes)
                    self._on_down(effect.key, effect.reason)
                elif isinstance(effect, Closed):
                    assert isinstance(effect.key, bytes)
                    self._on_closed(effect.key)
        finally:
            self._arm_soon()

    def _transmit(self, effect: Transmit) -> None:
        port, frames = self._port, effect.frames
        host = self._hosts.get(frames[0], "")
        if port is None or not self._traffic.lets_out(host):
            return
        try:
            port.put(frames)
        except zmq.ZMQError as problem:
            if problem.errno == zmq.EHOSTUNREACH:
                self._acceptor.unroutable(self._loop.time(), frames[0])
            else:  # it does not read; it asks again for what it misses when it does
                self._acceptor.counters["sessions_stuck"] += 1
        else:
            size = sum(map(len, frames)) - len(frames[0])
            self._traffic.sent(host, effect.service, size)
        if not self._touching:
            self._touching = True
            self._loop.call_soon(self._touch)

    def _touch(self) -> None:
        self._touching = False
        if self._port:
            self._port.touched()

    def _arm_soon(self) -> None:
        """Set the timer when this turn of the loop is over: a confirmation may yet ride on what it answers."""
        if not self._arming:
            self._arming = True
            self._loop.call_soon(self._arm)

    def _arm(self) -> None:
        self._arming = False
        deadline = self._acceptor.deadline
        if deadline is not None and (self._timer is None or deadline < self._armed):
            if self._timer:
                self._timer.cancel()
            self._armed = deadline
            self._timer = self._loop.call_at(deadline, self._due)

    def _due(self) -> None:
        self._timer = None
        self._do(self._acceptor.due(self._loop.time()))
