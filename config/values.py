"""The kinds of value in a node's YAML: names, paths, addresses, sources of node ids; each checked, each with its hint.

Field types for pydantic models, used by `node`. Knows no section and no other field; what concerns several of them is
checked in `node`. The validation context gives the folder that paths count from and the identity sources there are.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ValidationInfo, WithJsonSchema

from .findings import quoted
from .names import LONGEST_SOCKET, NAME_PATTERN, id_problem, name_problem
from .wording import refusal, suggestion

BUILT_IN_SOURCES = {
    "machine-id": "",
    "dmi": "",
    "generated": "",
    "file": "PATH",
    "command": "[PROGRAM, ARGUMENT]",
    "value": "TEXT",
}
"""The identity sources of SPEC 5.1, and what is written behind each."""


def _name(name: str) -> str:
    wrong = name_problem(name)
    if wrong:
        raise refusal("bad_name", *wrong)
    return name


def _not_empty(path: Any) -> Any:
    if path == "":
        raise refusal("bad_value", "an empty path stands here", "write a path, or leave the line out")
    return path


def _path(path: Path, info: ValidationInfo) -> Path:
    text = os.fspath(path)
    if text.startswith("~"):
        raise refusal("bad_value", "'~' is not replaced by a home folder here", "write the whole path")
    if "\0" in text:
        raise refusal("bad_value", "a path cannot hold the character U+0000")
    folder = (info.context or {}).get("folder", Path.cwd())
    return Path(os.path.normpath(folder / path))


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise refusal(
            "bad_value", f"there is no file {quoted(os.fspath(path), 4096)}", "relative paths count from this file"
        )
    return path


def _state_folder(path: Path) -> Path:
    socket = path / "run" / "events.sock"  # the longest of those in that folder
    over = len(os.fsencode(socket)) - LONGEST_SOCKET
    if over > 0:
        message = f"its bus socket {quoted(os.fspath(socket))} is {over} bytes too long for the system"
        hint = f"choose a path that is {over} bytes shorter: a socket's path may have {LONGEST_SOCKET}"
        raise refusal("path_too_long", message, hint)
    return path


def adapter_address(written: str) -> str:
    """Check one ADDRESS/PREFIX and return it in its usual spelling."""
    address, slash, prefix = written.partition("/")
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        hint = "write ADDRESS/PREFIX, for example 127.1.0.1/16"
        raise refusal("bad_address", f"{quoted(written)} is not an address with a prefix length", hint) from None
    if not slash:
        example = 16 if found.version == 4 else 64
        hint = f"write {address}/{example}, if its subnetwork has {example} bits"
        raise refusal("bad_address", f"{quoted(written)} has no prefix length", hint)
    if not re.fullmatch(r"[0-9]{1,3}", prefix) or not 1 <= int(prefix) <= found.max_prefixlen:
        message = f"{quoted(prefix)} is not a prefix length"
        raise refusal("bad_address", message, f"write a number of bits, 1 to {found.max_prefixlen}")
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        raise refusal("bad_address", f"{quoted(written)} is an IPv4 address in disguise", f"write {found.ipv4_mapped}")
    if found.is_unspecified or found.is_multicast or int(found) == 0xFFFF_FFFF:  # the last: everybody's on the link
        raise refusal("bad_address", f"{quoted(written)} is not the address of one adapter", "write the node's own")
    interface = ipaddress.ip_interface(f"{found}/{int(prefix)}")
    network = interface.network
    if isinstance(found, ipaddress.IPv4Address) and network.prefixlen < 31 and found in (network[0], network[-1]):
        which = "network" if found == network[0] else "broadcast"
        message = f"{quoted(written)} is the {which} address of its subnetwork"
        raise refusal("bad_address", message, f"write the node's own, for example {network[1]}/{prefix}")
    return str(interface)


def identity_fields(written: Any, info: ValidationInfo) -> dict[str, Any]:
    """Turn `NAME` or `{NAME: VALUE}` into `{source, value}`; refuse what is wrong with either."""
    at: tuple[str, ...] = ()
    name, value = written, None
    if isinstance(written, dict) and len(written) == 1:
        ((name, value),) = written.items()
        at = (name,)
    if not isinstance(name, str):
        raise refusal("wrong_type", "'identity' must be one source", "write NAME, or {NAME: VALUE}")
    sources = (info.context or {}).get("identity_sources")
    if sources is not None and name not in sources:
        hint = suggestion(name, sources)
        raise refusal("unknown_source", f"there is no identity source {quoted(name)}", hint, at=at, at_key=bool(at))
    wanted = BUILT_IN_SOURCES.get(name)
    hint = f"write {{{name}: {wanted}}}"
    if wanted == "" and value is not None:
        raise refusal("bad_value", f"'{name}' takes no value", f"write identity: {name}", at=at)
    if name == "command":
        if not (isinstance(value, list) and value and all(isinstance(part, str) and part for part in value)):
            raise refusal("wrong_type", "'command' must be a list of texts: a program, its arguments", hint, at=at)
        value = tuple(value)
    elif wanted:
        if not isinstance(value, str) or not value.strip():
            raise refusal("wrong_type", f"behind '{name}' there must be text", hint, at=at)
        wrong = id_problem(value.strip()) if name == "value" else None
        if wrong:
            raise refusal("bad_value", *wrong, at=at)
        value = os.fspath(_path(Path(value), info)) if name == "file" else value
    return {"source": name, "value": value}


Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": NAME_PATTERN})]
PlacedPath = Annotated[
    Path, AfterValidator(_path), BeforeValidator(_not_empty), WithJsonSchema({"type": "string", "minLength": 1})
]
"""A path that counts from the folder of the file it stands in."""
ExistingFile = Annotated[PlacedPath, AfterValidator(_existing)]
StateFolder = Annotated[PlacedPath, AfterValidator(_state_folder)]
Adapter = Annotated[
    str,
    AfterValidator(adapter_address),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9A-Fa-f.:]+(%[^/]+)?/[0-9]{1,3}$"}),
]
