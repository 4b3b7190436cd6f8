"""Who is dialled: the sessions of all brokers that dialled this one, over whatever connections. A pure machine.

Knows no socket, clock, thread or random source: what came in on which connection enters by the methods, at time `now`;
each returns the effects to perform, in order. A session is known by its number, 64 random bits that the dialler chose,
and belongs to the user (the proved key) that opened it; its connection changes when the dialler connects anew.

What comes over another connection than the session's present one is late and dropped: it was sent again. A dialler
that names a session nobody knows is told so. A ROUTER socket cannot tell that a connection broke, nor close one, so the
dialler's side does both, and here a connection is gone when nothing can be sent to it, or nothing was heard for long.

Odd: a session that ended is forgotten; the dialler sends data only after it was accepted, so one that is opened again
under the same number cannot repeat anything.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from ..errors import Malformed, Unreachable
from .messages import Kind
from .session import (
    ACCEPT,
    CUT,
    END,
    FULL,
    HEARTBEAT,
    IDLE,
    LEAVING,
    MISMATCH,
    OPEN,
    PING,
    REASONS,
    RESUME,
    SAID,
    SILENT,
    SILENT_END,
    UNKNOWN,
    Closed,
    Counters,
    Down,
    Effect,
    Session,
    Transmit,
    Up,
    frame,
    parse,
)

MOST = 20_000
"""Sessions at a time; twice the largest cluster. Each costs about a kilobyte."""

LOOK = 0.25
"""Seconds a heartbeat may be late, so that sessions are looked at together; and longer than a dialler's own needs,
which spares that of this side. Confirmations are not kept waiting for it."""


class Accepted:
    """A session that another broker opened, and the connection it is on now (None: broken, or not known to be)."""

    __slots__ = ("attempt", "connection", "key", "session", "user")

    def __init__(self, session: Session, key: bytes, user: str) -> None:
        self.session = session
        self.key = key
        self.user = user
        self.connection: bytes | None = None
        self.attempt = 0


class Acceptor:
    """Hold the sessions of those who dialled. Keys are the session numbers as 8 bytes: they outlive connections.

    `counters` counts what was refused and lost over all sessions, of which there are at most `most`.
    Invariants: 1. each session is on at most one connection; 2. an attached session has a connection.
    """

    def __init__(self, counters: Counter[str] | None = None, most: int = 0) -> None:
        self.sessions: dict[int, Accepted] = {}
        self.counters: Counter[str] = Counter() if counters is None else counters
        self._most = most or MOST
        self._connections: dict[bytes, Accepted] = {}
        self._owing: dict[int, float] = {}  # sessions that owe a confirmation, and until when, the first one first
        self._look_at = math.inf

    @property
    def deadline(self) -> float | None:
        """When `due` must be called; None: not at all."""
        at = self._look_at
        if self._owing:
            at = min(at, next(iter(self._owing.values())))
        return None if at == math.inf else at

    def send(self, now: float, key: bytes, kind: Kind, frames: list[Any], service: str = "") -> list[Effect]:
        """Send to the broker of this session; raises Overloaded, and Unreachable when the session is over."""
        accepted = self.sessions.get(int.from_bytes(key, "big"))
        if accepted is None:
            raise Unreachable("the other node's broker hung up", "it dials again when it needs something")
        effects = accepted.session.send(now, kind, frames, service)
        self._look_at = min(self._look_at, now + HEARTBEAT + LOOK)
        if accepted.session.ack_by is None:
            self._owing.pop(accepted.session.number, None)
        return effects

    def heard(self, now: float, connection: bytes, frames: list[Any], user: str = "") -> list[Effect]:
        """A message came in on a connection: the session frame as bytes, and what follows it."""
        try:
            if not connection.startswith(b"\0"):
                raise Malformed("a connection with a name of the dialler's own choice, which another could take over")
            type, number, sequence, ack, extra = parse(frames[0], len(frames))
        except Malformed:
            self.counters["malformed"] += 1
            return []
        accepted = self._connections.get(connection)
        if accepted is not None and accepted.user != user:
            self.counters["sessions_wrong_key"] += 1
            return []
        if accepted is not None and accepted.session.number == number and type in SAID:
            session = accepted.session
            effects = session.heard(now, type, sequence, ack, extra, frames[1:])
            if type == PING:  # it may have been calm until now
                self._look_at = min(self._look_at, now + HEARTBEAT + LOOK)
            if session.ack_by is None:
                self._owing.pop(number, None)
            elif number not in self._owing:
                self._owing[number] = session.ack_by
            return effects
        if type in (OPEN, RESUME):
            return self._opened(now, connection, type, number, sequence, ack, extra, user)
        if accepted is not None and accepted.session.number == number and type == END:
            return self._ended(accepted, extra)
        if number in self.sessions or type == END:
            self.counters["sessions_late"] += 1
            return []
        return [self._refuse(connection, number, UNKNOWN)]

    def unroutable(self, now: float, connection: bytes) -> None:
        """Nothing can be sent on this connection any more: it is closed. Its session waits for the next one."""
        accepted = self._connections.pop(connection, None)
        if accepted is not None:
            self._detach(now, accepted)

    def due(self, now: float) -> list[Effect]:
        """Say what time demands: confirmations, heartbeats, and who was silent for too long."""
        effects: list[Effect] = []
        for number, by in list(self._owing.items()):
            if by > now:
                break
            del self._owing[number]
            session = self.sessions[number].session
            effects += session.due(now)
            if session.ack_by is not None:
                self._owing[number] = session.ack_by
        if now < self._look_at:
            return effects
        stood_still = now - self._look_at > SILENT / 5
        for accepted in list(self.sessions.values()):
            session = accepted.session
            if stood_still:
                session.excuse(now)
            if session.silent(now):
                if accepted.connection is not None:
                    effects.append(session.ending(now, SILENT_END))
                unheard = max(now - session.heard_at, SILENT)
                effects.append(self._down(accepted, f"nothing was heard for {unheard:.0f} s"))
            else:
                effects += session.due(now)
        self._look_at = LOOK + min((each.session.deadline for each in self.sessions.values()), default=math.inf)
        return effects

    def end(self, now: float, key: bytes, reason: str, code: int = CUT) -> list[Effect]:
        """End one session: its node is gone, or not trusted any more."""
        accepted = self.sessions.get(int.from_bytes(key, "big"))
        if accepted is None:
            return []
        goodbye = [accepted.session.ending(now, code)] if accepted.connection is not None else []
        return [*goodbye, self._down(accepted, reason)]

    def stop(self, now: float) -> list[Effect]:
        """Say goodbye to all: this broker ends."""
        attached = [each.session for each in self.sessions.values() if each.connection is not None]
        self.sessions.clear()
        self._connections.clear()
        self._owing.clear()
        self._look_at = math.inf
        return [session.ending(now, LEAVING) for session in attached]

    def check_invariants(self) -> None:
        """Raise AssertionError when a numbered invariant of the class does not hold."""
        bound = {each.connection: each for each in self.sessions.values() if each.connection is not None}
        assert bound == self._connections, "1"
        for number, accepted in self.sessions.items():
            assert accepted.session.attached == (accepted.connection is not None), "2"
            assert accepted.session.number == number
            accepted.session.check_invariants()
        assert not self._owing.keys() - self.sessions.keys()

    # --- inside -------------------------------------------------------------------------------------------------

    def _opened(
        self, now: float, connection: bytes, type: int, number: int, attempt: int, ack: int, extra: int, user: str
    ) -> list[Effect]:
        accepted = self.sessions.get(number)
        if accepted is not None and accepted.user != user:
            self.counters["sessions_wrong_key"] += 1
            return [self._refuse(connection, number, UNKNOWN)]
        if accepted is not None and attempt <= accepted.attempt:
            self.counters["sessions_late"] += 1
            return []
        effects: list[Effect] = []
        former = self.sessions.get(extra)
        if type == OPEN and extra != number and former is not None and former.user == user:
            effects.append(self._down(former, "it began anew"))
        if accepted is None:
            if type == RESUME:
                return [self._refuse(connection, number, UNKNOWN)]
            if len(self.sessions) >= self._most:
                self.counters["sessions_full"] += 1
                return [*effects, self._refuse(connection, number, FULL)]
            key = number.to_bytes(8, "big")
            accepted = self.sessions[number] = Accepted(Session(number, key, now, Counters()), key, user)
            effects.append(Up(key))
        elif type == RESUME:
            accepted.session.counters.resumed += 1
        self._look_at = min(self._look_at, now + HEARTBEAT + LOOK)
        session = accepted.session
        fits = session.attach(now, ack) and (type == RESUME or session.untouched)
        self._bind(now, accepted, connection, attempt)
        if not fits:
            goodbye = session.ending(now, MISMATCH)
            return [*effects, goodbye, self._down(accepted, REASONS[MISMATCH])]
        return [*effects, session.opening(now, ACCEPT, attempt), *session.rest(now)]

    def _bind(self, now: float, accepted: Accepted, connection: bytes, attempt: int) -> None:
        other = self._connections.pop(connection, None)
        if other is not None and other is not accepted:  # who opens a second session on a connection gave up the first
            self._detach(now, other)
        if accepted.connection is not None:
            self._connections.pop(accepted.connection, None)
        self._connections[connection] = accepted
        accepted.connection, accepted.attempt, accepted.session.route = connection, attempt, (connection,)

    def _detach(self, now: float, accepted: Accepted) -> None:
        accepted.connection = None
        accepted.session.detach(now)
        self._look_at = min(self._look_at, now + SILENT + LOOK)
        self._owing.pop(accepted.session.number, None)

    def _ended(self, accepted: Accepted, code: int) -> list[Effect]:
        if code != IDLE:
            return [self._down(accepted, REASONS.get(code, "it closed the connection"))]
        lost = accepted.session.waiting
        self.counters["messages_lost"] += lost
        self._drop(accepted)
        return [Closed(accepted.key, lost)]

    def _down(self, accepted: Accepted, reason: str) -> Down:
        lost = accepted.session.waiting
        self.counters["sessions_down"] += 1
        self.counters["messages_lost"] += lost
        self._drop(accepted)
        return Down(accepted.key, reason, reached=True, lost=lost)

    def _drop(self, accepted: Accepted) -> None:
        del self.sessions[accepted.session.number]
        if accepted.connection is not None:
            del self._connections[accepted.connection]
        self._owing.pop(accepted.session.number, None)

    @staticmethod
    def _refuse(connection: bytes, number: int, code: int) -> Transmit:
        return Transmit([connection, frame(END, number, extra=code)])
