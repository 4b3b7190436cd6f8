"""Hand out an answer that is larger than a message, in parts.

Knows bytes, not what they are. One answer is held at a time, so memory is bounded: another asker is told to wait, and
one that went away in the middle is forgotten after a while.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from ...errors import Busy, NotFound

PART = 512 * 1024
"""Bytes in one part: a hundredth of a second for the broker, far below what a message may hold."""

IDLE = 15.0
"""Seconds without a question after which an asker is taken for gone."""


class Parts:
    """The one answer that is being handed out."""

    def __init__(self, part: int = PART, idle: float = IDLE) -> None:
        self._part, self._idle = part, idle
        self._token = ""
        self._data = b""
        self._last_given = False
        self._timer: asyncio.TimerHandle | None = None

    def check_free(self) -> None:
        """Raise `Busy` while another asker is being served."""
        if self._token and not self._last_given:
            raise Busy("another backup is being taken from this server", "try again when it is done")

    def begin(self, data: bytes) -> dict[str, Any]:
        """Hold `data` for the asker of now; return the word to ask for it with, its size and the number of parts."""
        self.check_free()
        self._token, self._data, self._last_given = secrets.token_hex(8), data, False
        self._wait()
        return {"token": self._token, "size": len(data), "parts": -(-len(data) // self._part)}

    def give(self, token: str, number: int) -> bytes:
        """Return a part, counted from 0; `NotFound` when that answer is held no more."""
        start = number * self._part
        if token != self._token or not token or not 0 <= start < len(self._data):
            raise NotFound("that backup is not held here any more", "take it anew")
        self._last_given = start + self._part >= len(self._data)  # it may be asked for again, if the answer was lost
        self._wait()
        return self._data[start : start + self._part]

    def drop(self) -> None:
        """Forget what is held."""
        if self._timer:
            self._timer.cancel()
        self._token, self._data, self._timer = "", b"", None

    def _wait(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._idle, self.drop)
