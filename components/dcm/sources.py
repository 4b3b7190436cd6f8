"""Who this machine is: the sources of the *original* id that covey ships, and the reading of one (SPEC 5.1).

They come in by the same hook as those of other packages: this module is a plugin of its own, `identity`. Sources block
(a file, a command) and know nothing of clusters; what follows from an id is `identity.py`.
"""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...config import id_problem
from ...errors import IdentityUnreadable, InvalidFile
from ...plugins.hookspecs import IdentitySource, hookimpl
from ...plugins.manager import PluginManager
from .layout import Layout
from .storage import make_folder, read_document, write_document

COMMAND_SECONDS = 5.0
_MACHINE_ID = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_PRODUCT_UUID = Path("/sys/class/dmi/id/product_uuid")
_FIX = "make the source readable, or choose another with `node: {identity: …}` in the node's YAML"


@hookimpl
def covey_identity_sources() -> list[IdentitySource]:
    """Declare what covey ships; `config` knows what is written behind each."""
    return [
        IdentitySource("machine-id", _machine_id),
        IdentitySource("dmi", _dmi),
        IdentitySource("generated", _generated),
        IdentitySource("file", _file),
        IdentitySource("command", _command),
        IdentitySource("value", _value),
    ]


def installed_sources(plugins: PluginManager) -> dict[str, IdentitySource]:
    """Load the plugins that declare sources and return them by name; one that reuses a name is listed as failed."""
    plugins.load("covey")
    found: dict[str, IdentitySource] = {}
    for plugin, sources in plugins.call("covey_identity_sources"):
        names = [source.name for source in sources]
        taken = [name for number, name in enumerate(names) if name in found or name in names[:number]]
        if taken:
            plugins.fail("covey", plugin, f"the identity source {taken[0]!r} is declared already")
        else:
            found.update(zip(names, sources, strict=True))
    return found


def read_original(setting: Any, state_dir: Path, sources: Mapping[str, IdentitySource]) -> str:
    """Return the id that the configured source gives: `setting` is a source's name or `{name: value}`.

    Raises IdentityUnreadable when the source gives none, InvalidFile when there is no such source. Blocks.
    """
    name, value = next(iter(setting.items())) if isinstance(setting, Mapping) else (setting, None)
    if name not in sources:
        raise InvalidFile(f"there is no identity source {name!r}", "there are: " + ", ".join(sorted(sources)))
    try:
        text = sources[name].read(value, state_dir).strip()
    except (OSError, UnicodeDecodeError, subprocess.SubprocessError) as why:
        raise IdentityUnreadable(f"the identity source {name!r} cannot be read: {why}", _FIX) from why
    wrong = id_problem(text)
    if wrong:
        raise IdentityUnreadable(f"the identity source {name!r} gives no id: {wrong[0]}", f"{wrong[1]}; {_FIX}")
    return text


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
