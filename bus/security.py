"""Keys of nodes, the file they lie in, and sockets that accept or speak nothing but CURVE.

Knows no peer and no message: who is trusted is `trust.py`, who may shake hands `zap.py`. A key is 32 bytes, written
as 64 characters of hex everywhere in covey; only libzmq gets the bytes. The key file is text, owned by the daemon's
user with mode 0600; a file that is missing or not as it must be is an error, and never made again silently: the other
nodes know this one by its key alone.

Odd: the file is opened once, without following a link, and everything is asked of the open file, so it cannot be
exchanged between the look and the reading. `zmq` is imported by those who need it only: `covey config check` reads key
files, too.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import (
    CoveyError,
    KeyExists,
    KeyFileError,
    KeyMalformed,
    KeyMismatch,
    KeyMissing,
    KeyMode,
    KeyOwner,
    KeySymlink,
    KeyUnreadable,
    NoCurve,
)

if TYPE_CHECKING:
    import zmq

PEER_DOMAIN: Final = "covey.peer"
"""ZAP domain of the peer port: keys of defined nodes only."""

JOIN_DOMAIN: Final = "covey.join"
"""ZAP domain of the join port: any key, few verbs."""

NEWEST_NEEDED = (4, 3, 5)
"""The first libzmq in which neither overflows before the handshake nor raw connections hurt a CURVE server."""

LONGEST_FILE = 4096
"""Bytes of a key file that are read; a real one has about 250."""

_KEY = re.compile(r"[0-9a-f]{64}\Z")
_LINE = re.compile(r"(public|secret): *([0-9a-f]{64}) *\Z")
_HEAD = "# The key of one covey node: whoever has the secret line is that node. Mode 0600, and no copies.\n"


@dataclass(frozen=True, slots=True)
class Keys:
    """A CURVE key pair, both in hex. The secret one is not shown when a pair is printed or logged."""

    public: str
    secret: str = field(repr=False)

    @classmethod
    def make(cls) -> Keys:
        """Make a new pair from the system's randomness."""
        import zmq
        from zmq.utils import z85

        require_curve()
        public, secret = zmq.curve_keypair()
        return cls(z85.decode(public).hex(), z85.decode(secret).hex())


def is_key(text: str) -> bool:
    """Say whether text is a key as covey writes them: 64 characters of hex, lowercase."""
    return _KEY.match(text) is not None


def require_curve() -> None:
    """Raise `NoCurve` unless libzmq can encrypt and has the fixes that a port open to strangers needs."""
    import zmq

    if not zmq.has("curve"):
        raise NoCurve(f"libzmq {zmq.zmq_version()} was built without CURVE (libsodium)", "pip install -U pyzmq")
    if zmq.zmq_version_info() < NEWEST_NEEDED:
        needed = ".".join(str(part) for part in NEWEST_NEEDED)
        raise NoCurve(f"libzmq {zmq.zmq_version()} is too old: {needed} is needed", "pip install -U pyzmq")


# --- the key file ---------------------------------------------------------------------------------------------------


def make_keys(path: str | os.PathLike[str]) -> Keys:
    """Make a key pair and write it to a new file, durably; raises KeyExists, KeyFileError."""
    keys = Keys.make()
    text = f"{_HEAD}public: {keys.public}\nsecret: {keys.secret}\n"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        hint = "a key is never overwritten; move the old one away first"
        raise KeyExists(f"{os.fspath(path)} exists", hint) from None
    except OSError as why:
        raise KeyFileError(f"{os.fspath(path)} cannot be written: {why.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, 0o600)  # whatever the umask was
            file.write(text.encode())
            file.flush()
            os.fsync(handle)
        _sync_folder(Path(path).absolute().parent)
    except OSError as why:
        Path(path).unlink(missing_ok=True)  # half a key is worse than none: nobody may take it for one
        raise KeyFileError(f"{os.fspath(path)} cannot be written: {why.strerror}") from None
    return keys


def load_keys(path: str | os.PathLike[str]) -> Keys:
    """Return the key pair of a file; raises the KeyFileError that says what is wrong with it and what to do."""
    name = os.fspath(path)
    keys = _parsed(name, _read(name))
    if _public_of(keys.secret) != keys.public:
        message = f"{name}: the public key in it is not the one of the secret key"
        raise KeyMismatch(message, "put back the file as it was made")
    return keys


def key_file_problem(path: str | os.PathLike[str]) -> CoveyError | None:
    """Return what `load_keys` would raise; None when the file can be used."""
    try:
        load_keys(path)
    except CoveyError as problem:
        return problem
    return None


def _read(name: str) -> str:
    try:
        # O_NONBLOCK: opening a pipe of that name must not wait for somebody to write into it
        handle = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        hint = "`covey node init` makes one; if it was lost, put the old one back: the cluster knows the node by it"
        raise KeyMissing(f"there is no key file {name}", hint) from None
    except OSError as why:
        if Path(name).is_symlink():
            raise KeySymlink(f"{name} is a symbolic link", "name the file it leads to") from None
        hint = "start as the user who owns it" if isinstance(why, PermissionError) else ""
        raise KeyUnreadable(f"{name} cannot be read: {why.strerror}", hint) from None
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise KeyUnreadable(f"{name} is not a file", "name the file that `covey node init` made")
        if about.st_uid != os.geteuid():
            message = f"{name} belongs to user {about.st_uid}, the daemon runs as user {os.geteuid()}"
            raise KeyOwner(message, f"chown {os.geteuid()} {shlex.quote(name)}")
        mode = stat.S_IMODE(about.st_mode)
        if mode & 0o7177:
            message = f"{name} has mode {mode:04o}; only its owner may read and write it (0600)"
            raise KeyMode(message, f"chmod 600 {shlex.quote(name)}; if others could have read it, make a new key")
        data = os.read(handle, LONGEST_FILE + 1)
    except OSError as why:
        raise KeyUnreadable(f"{name} cannot be read: {why.strerror}") from None
    finally:
        os.close(handle)
    if len(data) > LONGEST_FILE:
        raise KeyMalformed(f"{name} is too long for a key file", "name the file that `covey node init` made")
    return data.decode("ascii", "replace")


def _parsed(name: str, text: str) -> Keys:
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.match(line)
        if match is None or match[1] in found:
            # the line itself is not shown: it may hold a secret
            message = f"{name}, line {number}: neither `public:` nor `secret:` with 64 characters of hex, each once"
            raise KeyMalformed(message, "put back the file as it was made")
        found[match[1]] = match[2]
    missing = {"public", "secret"} - set(found)
    if missing:
        raise KeyMalformed(f"{name} has no line `{min(missing)}:`", "put back the file as it was made")
    return Keys(found["public"], found["secret"])


def _public_of(secret: str) -> str:
    import zmq
    from zmq.utils import z85

    require_curve()
    return z85.decode(zmq.curve_public(z85.encode(bytes.fromhex(secret)))).hex()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- sockets --------------------------------------------------------------------------------------------------------


def secure_server(socket: zmq.Socket[bytes], keys: Keys, domain: str) -> None:
    """Make a socket that binds speak CURVE alone and ask the ZAP handler of its context; before it is bound.

    The binding side is the CURVE server: servers that connect have met assertions in libzmq. The domain is enforced:
    without that, a socket whose handler is missing would take any key.
    """
    import zmq

    require_curve()
    socket.setsockopt(zmq.ZAP_DOMAIN, domain.encode())
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, bytes.fromhex(keys.secret))


def secure_client(socket: zmq.Socket[bytes], keys: Keys, server_key: str) -> None:
    """Make a socket that connects speak CURVE alone, and only with the holder of `server_key`; before it connects."""
    import zmq

    require_curve()
    if not is_key(server_key):
        raise KeyMalformed(f"'{server_key[:80]}' is no public key", "a key has 64 characters of hex")
    socket.setsockopt(zmq.CURVE_SERVERKEY, bytes.fromhex(server_key))
    socket.setsockopt(zmq.CURVE_PUBLICKEY, bytes.fromhex(keys.public))
    socket.setsockopt(zmq.CURVE_SECRETKEY, bytes.fromhex(keys.secret))
