"""The thread that writes the log: while one sync runs, the next batch gathers (group commit).

Knows the disk and the loop, nothing of the machine. Orders are done in the order in which they came; what one turn of
the loop orders is handed over together, and all that wait when the disk is free become one batch and one sync. (The
first of thirty puts does not wake the thread: it would take the interpreter from the loop that works on the others.)
An error of the disk is handed to the loop, which ends the component: this thread does nothing after it.

When there is no room, that batch and all that was ordered behind it are given up, for they are chained to it; the loop
hears it, and what it orders from then on is written again. A damaged copy is no disk: then the first order is a refill,
which makes one.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .disk import Disk
from .files import NoRoom

BATCH_RECORDS = 1024
"""Records in one batch at most, so that the first of them does not wait for a whole flood."""


class _Write(NamedTuple):
    """An order to make records durable."""

    number: int
    records: Sequence[bytes]


class _Refill(NamedTuple):
    """An order to put a new copy in the place of the one there is."""

    number: int
    make: Callable[[], Disk]


class Writer:
    """Owns the disk's log while it lives; `disk` is None while there is no sound one.

    `done(number)`, `trimmed()` and `refused(reason)` are called on the loop that made it; `refused` concerns all that
    was ordered and not yet said to be done.
    """

    def __init__(
        self,
        disk: Disk | None,
        done: Callable[[int], None],
        trimmed: Callable[[], None],
        refused: Callable[[str], None],
    ) -> None:
        self.disk = disk
        self._done, self._trimmed, self._refused = done, trimmed, refused
        self._refusing = False  # the thread's own: until the loop knows, orders build on what was not written
        self._loop = asyncio.get_running_loop()
        self._failed: asyncio.Future[None] = self._loop.create_future()
        self._gathered: list[bytes] = []  # ordered in this turn of the loop
        self._number = 0  # of the last order among them
        self._orders: queue.SimpleQueue[_Write | _Refill | str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="registry-log", daemon=True)
        self._thread.start()

    def write(self, number: int, records: Sequence[bytes]) -> None:
        """Order records to be made durable; `done` gets this number or a higher one."""
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.extend(records)
        self._number = number
        if len(self._gathered) >= BATCH_RECORDS:
            self._hand_over()

    def refill(self, number: int, make: Callable[[], Disk]) -> None:
        """Order a whole new copy: the one that is open is closed, then `make` (`Disk.refill`) is called, by the thread.

        `done` gets this number when it is there; `refused` is called when there is no room for it.
        """
        self._hand_over()
        self._orders.put(_Refill(number, make))

    def trim(self) -> None:
        """Order what a snapshot made needless to be removed."""
        self._hand_over()
        self._orders.put("trim")

    async def failed(self) -> None:
        """Wait until the disk fails, and raise `DiskFailed`."""
        await asyncio.shield(self._failed)

    async def close(self) -> None:
        """Finish what was ordered, then close the disk."""
        self._hand_over()
        self._orders.put("close")
        await asyncio.to_thread(self._thread.join)

    def _hand_over(self) -> None:
        if self._gathered:
            self._orders.put(_Write(self._number, self._gathered))
            self._gathered = []

    def _run(self) -> None:
        try:
            while self._work():
                pass
            if self.disk:
                self.disk.close()
        except Exception as error:
            if self.disk:
                self.disk.abandon()
            self._tell(self._fail, error)

    def _work(self) -> bool:
        """Do what waits; return False when it was the order to close."""
        order = self._orders.get()
        batch: list[bytes] = []
        number = 0
        while isinstance(order, _Write):
            number = order.number
            batch.extend(order.records)
            if len(batch) >= BATCH_RECORDS:
                break
            try:
                order = self._orders.get_nowait()
            except queue.Empty:
                break
        if batch:
            self._try(number, lambda: self._append(batch))
        if isinstance(order, _Refill):
            make = order.make
            self._try(order.number, lambda: self._replace(make))
        elif order == "known":
            self._refusing = False
        elif order == "trim" and self.disk:
            self.disk.trim()
            self._tell(self._trimmed)
        return order != "close"

    def _append(self, batch: list[bytes]) -> None:
        if self.disk is None:
            raise RuntimeError("records were ordered before the copy was refilled")
        self.disk.append(batch)

    def _replace(self, make: Callable[[], Disk]) -> None:
        if self.disk:
            disk, self.disk = self.disk, None
            disk.close()
        self.disk = make()

    def _try(self, number: int, write: Callable[[], None]) -> None:
        if self._refusing:
            return
        try:
            write()
        except NoRoom as problem:
            self._refusing = True
            self._tell(self._refuse, str(problem))
        else:
            self._tell(self._done, number)

    def _refuse(self, reason: str) -> None:
        self._hand_over()  # that, too, builds on what was not written
        self._orders.put("known")  # before whatever `refused` leads to
        self._refused(reason)

    def _tell(self, function: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends, nobody is left to tell
            self._loop.call_soon_threadsafe(function, *arguments)

    def _fail(self, error: Exception) -> None:
        if not self._failed.done():
            self._failed.set_exception(error)
