"""What a folder can hold after a kill or a loss of power, at every call to the system that code in it makes.

`Power` stands between the code and the system while it is watching: it counts the calls that change files, can end the
code in the middle of any of them, and knows what was synced. A *kill* leaves all that was done. A *loss of power* keeps
what was synced: of a file the bytes at its last sync, of a folder the names at its last sync; what came later is there
or not, bytes in blocks and in any pattern, names in the order in which they were changed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

SECTOR = 512  # bytes that a disk writes over wholly or not at all
BLOCK = 64  # new bytes come in pieces that are far smaller than real ones, so that small files tear too
CALLS = ("open", "pwrite", "ftruncate", "fsync", "fdatasync", "replace", "rename", "unlink", "mkdir", "rmdir")

Names = dict[str, int]  # of a folder: name, inode


class Killed(BaseException):
    """The process ended here."""


class Power:
    """The files below `root` and what is durable of them. Everything in it counts as durable when it is made."""

    def __init__(self, root: Path, random: Random) -> None:
        self.root, self.random = root, random
        self.calls = 0
        self._kill_at = -1  # number of the call in the middle of which the code is killed
        self.room = -1  # bytes by which files may still grow; below 0: any number
        self.each: Callable[[], None] | None = None  # called before each call, with nothing of it done
        self._real = {name: getattr(os, name) for name in CALLS}
        self._real["fsync"] = self._real["fdatasync"] = lambda descriptor: None  # what a sync does, this class does
        self._bytes: dict[int, bytes] = {}
        self._names: dict[int, list[Names]] = {}  # as synced, then after each change
        self._held: list[int] = []  # descriptors that keep the numbers of inodes from being used again
        self._dead = self._looking = False
        for path in (root, *root.rglob("*")):
            self._hold(path)
            if path.is_dir():
                self._names[path.stat().st_ino] = [_listing(path)]
            else:
                self._bytes[path.stat().st_ino] = path.read_bytes()

    def close(self) -> None:
        """Give up what is held."""
        for descriptor in self._held:
            os.close(descriptor)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Stand between the code inside and the system."""
        before = {name: getattr(os, name) for name in CALLS}
        for name in CALLS:
            setattr(os, name, self._wrapped(name))
        try:
            yield
        finally:
            for name, call in before.items():
                setattr(os, name, call)

    def kill_in(self, n: int) -> None:
        """Kill the code in the middle of its n-th call from now; 0: do not."""
        self._kill_at = self.calls + n if n else -1

    def revive(self) -> None:
        """Let code run again after a kill, on what that left; what was not synced still is not. There is room."""
        self._dead = False
        self._kill_at = self.room = -1

    def killed(self, target: Path) -> Path:
        """Write what a kill leaves to the new folder `target`."""
        return self._image(target, lambda names: names[-1], lambda durable, now: now)

    def lost(self, target: Path) -> Path:
        """Write what a loss of power may leave to the new folder `target`."""
        names = self.random.choice([lambda names: names[0], lambda names: names[-1], self.random.choice])
        parts = self.random.choice([lambda durable, now: durable, lambda durable, now: now, self._torn])
        return self._image(target, names, parts)

    # --- the calls ---

    def _wrapped(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if self._looking:
                return self._real[name](*arguments, **options)
            if name == "open" and not arguments[1] & (os.O_CREAT | os.O_TRUNC):
                return self._real["open"](*arguments, **options)
            if self._dead:
                raise Killed
            if self.each:
                self._looking = True
                self.each()
                self._looking = False
            self.calls += 1
            if self.calls == self._kill_at:
                self._dead = True
                if name == "pwrite":  # a part of it is done
                    part = bytes(arguments[1])[: self.random.randrange(len(arguments[1]) + 1)]
                    self._real["pwrite"](arguments[0], part, arguments[2])
                raise Killed
            if name == "pwrite" and self.room >= 0:
                arguments = self._fitting(*arguments)
            result = self._real[name](*arguments, **options)
            self._after(name, arguments, options, result)
            return result

        return call

    def _fitting(self, descriptor: int, data: bytes, offset: int) -> tuple[int, bytes, int]:
        size = os.fstat(descriptor).st_size
        fits = bytes(data)[: max(size - offset, 0) + self.room]
        if data and not fits:
            raise OSError(28, "No space left on device")
        self.room -= max(offset + len(fits) - size, 0)
        return descriptor, fits, offset

    def _after(self, name: str, arguments: Any, options: Any, result: Any) -> None:
        if name in ("fsync", "fdatasync"):
            found = os.fstat(arguments[0])
            if stat.S_ISDIR(found.st_mode):
                self._names[found.st_ino] = [_listing(_path_of(arguments[0]))]
            else:
                self._bytes[found.st_ino] = _content(arguments[0])
        elif name == "open":
            self._held.append(os.dup(result))
            self._bytes.setdefault(os.fstat(result).st_ino, b"")
            self._changed(Path(arguments[0]).parent)
        elif name == "mkdir":
            self._hold(arguments[0])
            self._names[Path(arguments[0]).stat().st_ino] = [{}]
            self._changed(Path(arguments[0]).parent)
        elif name in ("replace", "rename"):
            self._changed(Path(arguments[1]).parent)
        elif name in ("unlink", "rmdir"):
            within = options.get("dir_fd")
            self._changed(Path(arguments[0]).parent if within is None else _path_of(within))

    def _changed(self, folder: Path) -> None:
        self._names[folder.stat().st_ino].append(_listing(folder))

    def _hold(self, path: str | Path) -> None:
        self._held.append(self._real["open"](path, os.O_RDONLY))

    # --- the images ---

    def _image(
        self, target: Path, names: Callable[[list[Names]], Names], parts: Callable[[bytes, bytes], bytes]
    ) -> Path:
        now = {os.fstat(one).st_ino: one for one in self._held if not stat.S_ISDIR(os.fstat(one).st_mode)}

        def build(inode: int, place: Path) -> None:
            place.mkdir()
            for name, each in names(self._names[inode]).items():
                if each in self._names:
                    build(each, place / name)
                else:
                    (place / name).write_bytes(parts(self._bytes[each], _content(now[each])))

        build(self.root.stat().st_ino, target)
        return target

    def _torn(self, durable: bytes, now: bytes) -> bytes:
        """Return `now` with some of the blocks that are not durable as they were, or empty."""
        if durable == now:
            return now
        size = self.random.choice([len(now), len(durable), self.random.randint(0, max(len(now), len(durable)))])
        size = max(size, min(len(durable), len(now)))
        blocks, start = [], 0
        while start < size:
            length = SECTOR if start < len(durable) else BLOCK
            old, new = durable[start : start + length], now[start : start + length]
            blocks.append(self.random.choice([old, new]).ljust(length, b"\0"))
            start += length
        return b"".join(blocks)[:size]


def _listing(folder: Path) -> Names:
    return {path.name: path.stat().st_ino for path in folder.iterdir()}


def _path_of(descriptor: int) -> Path:
    """Return a path of an open file or folder that may have lost its name, readable in any case."""
    return Path(f"/proc/self/fd/{descriptor}")


def _content(descriptor: int) -> bytes:
    return _path_of(descriptor).read_bytes()
