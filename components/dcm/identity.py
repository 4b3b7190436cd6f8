"""Who this machine is, and what follows when it wants to join (SPEC 5).

Two halves. The sources read the *original* id from the machine; they block (a file, a command) and know nothing of
clusters. `judge` compares the three copies (original, local, global) and is pure: a table over two comparisons, with
the guards of SPEC 5.4 to 5.6 before and after it. What cannot be decided gets no scenario, and nothing is ever
deleted for it.
"""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from ...config import id_problem
from ...errors import IdentityUnreadable, InvalidFile
from ...plugins.hookspecs import IdentitySource
from .definitions import NodeDefinition, Replacement
from .layout import Layout
from .storage import make_folder, read_document, write_document

COMMAND_SECONDS = 5.0
_MACHINE_ID = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_PRODUCT_UUID = Path("/sys/class/dmi/id/product_uuid")


# --- the original id ------------------------------------------------------------------------------------------


def read_original(setting: Any, state_dir: Path, more: Mapping[str, IdentitySource] | None = None) -> str:
    """Return the id that the configured source gives: `setting` is a source's name or `{name: value}`.

    Raises IdentityUnreadable when the source gives none, InvalidFile when there is no such source. Blocks.
    """
    name, value = next(iter(setting.items())) if isinstance(setting, Mapping) else (setting, None)
    sources: dict[str, Callable[[Any, Path], str]] = dict(_SOURCES)
    sources.update({key: source.read for key, source in (more or {}).items() if key not in _SOURCES})
    if name not in sources:
        raise InvalidFile(f"there is no identity source {name!r}", "there are: " + ", ".join(sorted(sources)))
    try:
        text = sources[name](value, state_dir).strip()
    except (OSError, UnicodeDecodeError, subprocess.SubprocessError) as why:
        raise IdentityUnreadable(f"the identity source {name!r} cannot be read: {why}", _FIX) from why
    wrong = id_problem(text)
    if wrong:
        raise IdentityUnreadable(f"the identity source {name!r} gives no id: {wrong[0]}", f"{wrong[1]}; {_FIX}")
    return text


_FIX = "make the source readable, or choose another with `node: {identity: …}` in the node's YAML"


def _machine_id(_value: Any, _state_dir: Path) -> str:
    for path in _MACHINE_ID:
        if path.exists():
            return path.read_text(encoding="ascii")
    raise FileNotFoundError(f"neither {_MACHINE_ID[0]} nor {_MACHINE_ID[1]} is there")


def _dmi(_value: Any, _state_dir: Path) -> str:
    return _PRODUCT_UUID.read_text(encoding="ascii").lower()


def _generated(_value: Any, state_dir: Path) -> str:
    path = Layout(state_dir).identity_file
    kept = read_document(path, "generated identity", dict[str, str])
    if kept is None:
        kept = {"id": uuid.uuid4().hex}
        make_folder(path.parent)
        write_document(path, "generated identity", kept)
    return kept["id"]


def _file(value: Any, _state_dir: Path) -> str:
    with Path(value).open("rb") as file:
        return file.read(4096).decode("utf-8")


def _command(value: Any, _state_dir: Path) -> str:
    done = subprocess.run(  # argument vector of the node's own YAML, no shell
        [str(part) for part in value],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=COMMAND_SECONDS,
        check=True,
    )
    return done.stdout[:4096].decode("utf-8")


def _value(value: Any, _state_dir: Path) -> str:
    return str(value)


_SOURCES: dict[str, Callable[[Any, Path], str]] = {
    "machine-id": _machine_id,
    "dmi": _dmi,
    "generated": _generated,
    "file": _file,
    "command": _command,
    "value": _value,
}


def source_names(more: Mapping[str, IdentitySource] | None = None) -> list[str]:
    """Return the names of all identity sources, for messages and schemas."""
    return sorted({*_SOURCES, *(more or {})})


# --- the verdict ----------------------------------------------------------------------------------------------


class Copy(msgspec.Struct, frozen=True):
    """What is compared: an id with the cluster, number and definition it belongs to."""

    cluster_id: str
    number: int
    definition_id: str
    id: str


class Elsewhere(msgspec.Struct, frozen=True):
    """What else the cluster knows that bears on a verdict (SPEC 5.5).

    `boot` says where this node number is online under another boot id, `owner` which other node has the original id;
    None: nowhere, nobody.
    """

    boot: str | None = None
    owner: str | None = None


NOWHERE = Elsewhere()
Action = Literal["join", "replace", "erase", "wait", "refuse"]


class Verdict(msgspec.Struct, frozen=True):
    """The three ids, the scenario (None: undecided) and what follows. `code` is an error code when it is a refusal."""

    original: str | None
    local: str | None
    global_: str | None = msgspec.field(name="global")
    scenario: Literal[1, 2, 3, 4] | None
    action: Action
    reason: str
    code: str = ""


# (original = local, local = global) → scenario, action, reason: the table of SPEC 5.2
SCENARIOS: dict[tuple[bool, bool], tuple[Literal[1, 2, 3, 4], Action, str]] = {
    (True, True): (1, "join", "all three ids agree: the node joins"),
    (True, False): (2, "erase", "the node was undefined while it was away: its local definition is removed"),
    (False, True): (3, "replace", "its identity hardware was replaced: local and global id follow, then it joins"),
    (False, False): (
        4,
        "erase",
        "it was undefined while away and its identity changed: its local definition is removed",
    ),
}


def copy_of(cluster_id: str, node: NodeDefinition | None) -> Copy | None:
    """Return what is compared of a definition, None when there is none."""
    return None if node is None else Copy(cluster_id, node.number, node.definition_id, node.id)


def judge(
    original: str | None,
    local: Copy | None,
    global_: Copy | None,
    *,
    known: bool = True,
    why: str = "",
    replacement: Replacement | None = None,
    elsewhere: Elsewhere = NOWHERE,
) -> Verdict:
    """Compare the three copies and say what must be done. Pure.

    `global_` None with `known` means that a current read found no such node; `known=False` that nothing current could
    be read, for the reason `why`. `replacement` is the local record of a scenario 3 that was begun and not finished.
    """

    def verdict(scenario: Literal[1, 2, 3, 4] | None, action: Action, reason: str, code: str = "") -> Verdict:
        local_id, global_id = local.id if local else None, global_.id if global_ else None
        return Verdict(original, local_id, global_id, scenario, action, reason, code)

    if local is None:
        advice = "; the cluster lists its id: define it again" if elsewhere.owner else ""
        return verdict(None, "wait", f"this node has no local definition of the cluster{advice}", "dcm.not_defined")
    if original is None:
        return verdict(None, "wait", why or "the original id cannot be read", "identity.unreadable")
    if not known:
        return verdict(None, "wait", why or "the global configuration cannot be read")
    scenario: Literal[1, 2, 3, 4]
    action: Action
    if replacement is not None and _begun(local, global_, replacement) and local != global_:
        # the global id is further than the local one: it is completed, never judged as 2 or 4 (SPEC 5.4)
        scenario, action, reason = 3, "replace", "a replacement of its identity was begun: it is completed"
    else:
        scenario, action, reason = SCENARIOS[(original == local.id, local == global_)]
    if scenario in (1, 3) and elsewhere.boot:
        reason = f"this node is online already at {elsewhere.boot}: one of the two machines is a clone"
        return verdict(None, "refuse", reason, "identity.clone")
    if scenario == 3 and elsewhere.owner:
        reason = f"the original id belongs to {elsewhere.owner}: one of the two machines is a clone"
        return verdict(None, "refuse", reason, "identity.clone")
    return verdict(scenario, action, reason)


def _begun(local: Copy, global_: Copy | None, replacement: Replacement) -> bool:
    """Whether the global copy stands at the old or the new id of a replacement under way, all else being equal."""
    if global_ is None or msgspec.structs.replace(local, id=global_.id) != global_:
        return False
    return global_.id in (replacement.old, replacement.new)
