"""A state folder whose daemon does not run, for what an operator does to it in between: restore and force.

Takes the daemon's own lock for as long as it lasts, so that no daemon starts meanwhile, and writes the audit log that
the daemon would write.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import AlreadyRunning, Busy, CoveyError, Refused
from .audit import AuditLog
from .layout import Layout
from .lock import FolderLock
from .storage import Store


class Stopped:
    """The files of a node at rest."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.store = Store(layout)

    @contextmanager
    def audited(self, what: str, **particulars: Any) -> Iterator[None]:
        """Write into the audit log that it is begun, and how it ended; raises `CoveyError` when that cannot be."""
        log = AuditLog(self.layout.audit_log)
        try:
            log.append("covey", os.getuid(), what, "begun", **particulars)
        except OSError as why:
            raise CoveyError(f"{self.layout.audit_log} cannot be written: {why.strerror}", "nothing was done") from None
        try:
            yield
        except BaseException as why:
            log.append("covey", os.getuid(), what, why.code if isinstance(why, CoveyError) else type(why).__name__)
            raise
        log.append("covey", os.getuid(), what, "done")


@contextmanager
def stopped(state_dir: Path) -> Iterator[Stopped]:
    """Hold a state folder still; raises `AlreadyRunning` with the daemon's process id, `Refused` for others' files."""
    layout = Layout(state_dir)
    nearest = next(folder for folder in (layout.state_dir, *layout.state_dir.parents) if folder.exists())
    owner = nearest.stat().st_uid
    if layout.state_dir.exists() and owner != os.geteuid():
        raise Refused(
            f"{layout.state_dir} belongs to the user with number {owner}, and you are {os.geteuid()}",
            "do this as the user that the daemon runs as: it must be able to read what is written",
        )
    with FolderLock(layout.lock) as lock:
        if lock.holder == os.getpid():
            raise Busy(f"{layout.state_dir} is named twice", "name each state folder once")
        if lock.holder is not None:
            raise AlreadyRunning(
                f"process {lock.holder} runs on {layout.state_dir}",
                f"stop it first: kill {lock.holder}; nothing was done",
            )
        yield Stopped(layout)
