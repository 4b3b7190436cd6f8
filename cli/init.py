"""What `covey node init` writes: a node's YAML with a word on every setting, and its key beside it.

Knows the file's form, which `covey config check` passes, and this machine's addresses; nothing of a cluster. Nothing
that exists is ever overwritten: a key that is lost cuts the node off from its cluster.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..config.adapters import own_addresses
from ..errors import CoveyError, Refused

LOOPBACK = "127.1.0.1/16"
NAMES = ("node.yaml", "node.yml")

_TEXT = """\
# covey node {name}. `covey config check {file}` names every mistake in this file, `covey config show {file}`
# prints all settings. Relative paths count from this file's folder; durations and sizes carry their unit.
node:
  name: {name}
  state_dir: {state:<20} # all files of this node
  identity: {identity:<21} # who this machine is: machine-id | dmi | generated | {{file: PATH}} | {{value: TEXT}}
  adapters: {adapters:<21} # its own addresses that the others reach, as ADDRESS/PREFIX
  port: {port:<25} # for nodes of its cluster; the next port is for being defined, with a join token
security:
{security}
  roles: {{admin: [root]}}          # local users and groups; everyone else may look
isolation: process                # one process a component; inline: all in one, for small machines
liveness: {{interval: 1s}}          # time between two heartbeats
# controllers:                    # settings of resource controllers; `covey plugin ls` lists them
#   filesystem: {{poll: 30s}}
#   exec: {{enabled: false}}
"""

_CURVE = """\
  mode: curve                     # everything between nodes is encrypted; open: nothing is, on loopback addresses alone
  key: {{file: {key}}}
  # the key is who this node is to the others: keep it, and copy it to no other machine"""

_OPEN = """\
  mode: open                      # nothing is encrypted: on loopback addresses alone; curve: everything is"""


def paths(where: Path) -> tuple[Path, Path]:
    """Return the files of a node: `where` is its YAML, or the folder to put it in."""
    file = where if where.suffix in (".yaml", ".yml") else where / NAMES[0]
    return file, file.with_suffix(".key")


def write(
    where: Path, *, name: str | None, adapters: Sequence[str], port: int, state: str | None, curve: bool
) -> dict[str, Any]:
    """Write the files; return what was written. Raises Refused or KeyExists when one of them is there."""
    from ..bus.security import make_keys

    file, key = paths(where)
    for each in (file, key):
        if each.exists() or each.is_symlink():
            raise Refused(f"{each} exists", "nothing was written; move it away, or name another folder or file")
    chosen = list(adapters) or (list(own_addresses()) if curve else []) or [LOOPBACK]
    text = _TEXT.format(
        name=name or own_name(),
        file=file.name,
        state=_quoted(state or "./state"),
        identity="machine-id" if Path("/etc/machine-id").exists() else "generated",
        adapters=f"[{', '.join(chosen)}]",
        port=port,
        security=_CURVE.format(key=_quoted(key.name)) if curve else _OPEN,
    )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x") as opened:
            opened.write(text)
    except OSError as why:
        if not isinstance(why, FileExistsError):
            with suppress(OSError):  # a part of it may be there, and would be in the way of the next attempt
                file.unlink(missing_ok=True)
        raise CoveyError(f"{file} cannot be written: {why.strerror}") from None
    try:
        public = make_keys(key).public if curve else ""
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return {"file": str(file), "key_file": str(key) if curve else None, "key": public or None, "adapters": chosen}


def own_name() -> str:
    """Return this machine's name as a node's: its first part, with what a name may not hold left out."""
    short = re.sub(r"[^A-Za-z0-9_.-]", "", socket.gethostname().partition(".")[0])[:63].lstrip(".-")
    return short if short and not short.isdecimal() else f"n{short}"


def _quoted(text: str) -> str:
    import json

    return text if re.fullmatch(r"[A-Za-z0-9_./-]+", text) else json.dumps(text)
