"""A backup: the whole state of a registry in one file that says what it is.

The file is one line for people and programs, `covey-backup 1 DIGEST {…}`, and behind it the record of a snapshot. The
digest is that of the line's JSON, which names cluster, incarnation and revision, and holds size and digest of the
record. `read` believes nothing until all of it fits: the line, the record, the state's hash, and what the line says of
the state. Knows no bus. Odd: the file is made under another name and gets its own by a link, which, unlike a rename,
never replaces a file that is there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from ...errors import BackupDamaged, CoveyError, Refused
from . import records
from .files import sync_folder
from .keys import unpack_value
from .loaded import Loaded
from .recovery import recover
from .settings import Settings
from .store import Store

WORD = "covey-backup"
FORMAT = 1
LINE_BYTES = 4096
"""The longest first line that is read; a real one has about 400 bytes."""

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class Label(msgspec.Struct, frozen=True):
    """What the first line of a backup says. `taken_at` is RFC 3339, by the clock of where it was written."""

    cluster_id: str
    cluster_name: str
    incarnation: tuple[int, int, int]
    revision: int
    keys: int
    taken_at: str
    size: int
    digest: str


class Backup(msgspec.Struct, frozen=True):
    """A backup that was read and is sound. `chain` is the digest of the log's last entry in it."""

    label: Label
    store: Store
    chain: bytes


def definition(store: Store) -> dict[str, Any]:
    """Return what a state says of its cluster: id and name."""
    item = store.get("/cluster/definition")
    found = unpack_value(item.value) if item else {}
    return {"id": store.cluster_id, "name": str(found.get("name", "")) if isinstance(found, dict) else ""}


def check_absent(path: Path) -> None:
    """Raise `Refused` when there is a file of that name, or no folder for it."""
    if path.exists() or path.is_symlink():
        raise Refused(f"{path} exists", "nothing was written; name another file, or move it away")
    if not path.parent.is_dir():
        raise Refused(f"there is no folder {path.parent}", "nothing was written; make the folder first")


def write(path: Path, record: bytes, taken_at: str) -> Label:
    """Check a snapshot's record and write it as a backup, durably and whole or not at all; return its label.

    Raises `BackupDamaged` when the record is not sound, `Refused` when `path` exists, `CoveyError` when the disk
    refuses.
    """
    check_absent(path)
    store, _ = _opened(record, str(path), 0)
    label = _label(store, record, taken_at)
    said = msgspec.json.encode(label)
    write_new(path, f"{WORD} {FORMAT} {_digest(said)} ".encode() + said + b"\n", record)
    return label


def write_new(path: Path, *parts: bytes) -> None:
    """Write a new file, durably and whole or not at all; raises `Refused` when it exists, `CoveyError`."""
    try:
        _write_new(path, parts)
    except FileExistsError:
        raise Refused(f"{path} exists", "nothing was written; name another file, or move it away") from None
    except OSError as why:
        raise CoveyError(
            f"{path} cannot be written: {why.strerror or why}", "nothing was left there; name a place with room"
        ) from None


def _write_new(path: Path, parts: tuple[bytes, ...]) -> None:
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(handle)
        _name(Path(aside), path)
    finally:
        Path(aside).unlink(missing_ok=True)
    sync_folder(path.parent)


def _name(aside: Path, path: Path) -> None:
    try:
        os.link(aside, path)
    except OSError as why:
        if why.errno not in _NO_LINKS:
            raise
        if path.exists():
            raise FileExistsError(path) from None
        aside.replace(path)  # a file system without links


def read(path: Path, settings: Settings | None = None) -> Backup:
    """Read and check a backup: every byte of it, and that the state has the hash it says; raises `BackupDamaged`."""
    try:
        with path.open("rb") as file:
            line = file.readline(LINE_BYTES)
            data = file.read()
    except OSError as why:
        reason = why.strerror or why
        raise BackupDamaged(f"{path} cannot be read: {reason}", "name a file of `covey registry backup`") from None
    label = _read_line(path, line)
    if len(data) != label.size:
        more = "cut short" if len(data) < label.size else "longer than it was"
        raise BackupDamaged(
            f"{path} is {more}: {len(data)} bytes follow the first line, it says {label.size}", _ANOTHER, path=str(path)
        )
    store, chain = _opened(data, str(path), len(line), settings)
    found = _label(store, data, label.taken_at)
    if found != label:
        wrong = [name for name in Label.__struct_fields__ if getattr(found, name) != getattr(label, name)]
        raise BackupDamaged(f"{path}: its first line does not belong to the rest: {', '.join(wrong)}", _ANOTHER)
    return Backup(label, store, chain)


_ANOTHER = "nothing was changed; take another copy of the file, or another backup"


def _read_line(path: Path, line: bytes) -> Label:
    with contextlib.suppress(UnicodeDecodeError, ValueError, msgspec.MsgspecError):
        word, number, digest, said = line.rstrip(b"\n").split(b" ", 3)
        if word.decode() == WORD and digest.decode() == _digest(said):
            if number != str(FORMAT).encode():
                raise BackupDamaged(f"{path} has format {number.decode()}, this covey reads format {FORMAT}", _ANOTHER)
            return msgspec.json.decode(said, type=Label)
    what = "its first line is damaged" if line.startswith(WORD.encode()) else "it is no backup of a registry"
    raise BackupDamaged(f"{path}: {what}", _ANOTHER, path=str(path))


def _opened(data: bytes, path: str, offset: int, settings: Settings | None = None) -> tuple[Store, bytes]:
    try:
        record = records.decode_only(data, records.SNAPSHOT)
    except records.BadRecord as bad:
        place = f"{path} is damaged at byte {offset + bad.position}"
        raise BackupDamaged(f"{place}: {bad.reason}", _ANOTHER, path=path) from None
    found = recover(Loaded(snapshot=record), settings or Settings(), path)
    if found.damaged:
        raise BackupDamaged(f"{path}: {found.damaged[0].reason}", _ANOTHER, path=path)
    return found.store, found.chain


def _label(store: Store, record: bytes, taken_at: str) -> Label:
    cluster = definition(store)
    incarnation = (store.gen, store.epoch, store.index)
    digest = records.digest(record).hex()
    return Label(cluster["id"], cluster["name"], incarnation, store.revision, len(store), taken_at, len(record), digest)


def _digest(said: bytes) -> str:
    return records.digest_of(b"backup", said).hex()
