"""What may be a name of a node or a cluster, an id of a machine, a socket's path; apart from the models, for anybody.

Odd: names end up in file paths and on command lines, hence no leading dot or dash.
"""

from __future__ import annotations

import re

from .findings import quoted

LONGEST = 63
NAME_PATTERN = r"^(?![0-9]+$)[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$"
LONGEST_ID = 128
LONGEST_SOCKET = 107
"""Bytes of a path that the kernel takes for a local socket."""
_WORTHLESS_IDS = {"", "0" * 32, "f" * 32, "03000200040005000006000700080009", "uninitialized"}
"""What makers write where an id belongs: half the world would have the same one."""


def name_problem(name: str) -> tuple[str, str] | None:
    """Return what is wrong with a name and what to write instead (message, hint); None if it is a good name."""
    if re.fullmatch(NAME_PATTERN[1:-1], name):
        return None
    if re.fullmatch("[0-9]+", name):
        return f"the name {quoted(name)} is all digits, like a number", f"write n{name[: LONGEST - 1]}"
    if not 1 <= len(name) <= LONGEST:
        return f"a name has 1 to {LONGEST} characters, this one {len(name)}", ""
    better = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")
    hint = f"write {better}\n" if better and re.fullmatch(NAME_PATTERN[1:-1], better) else ""
    allowed = "allowed: letters, digits, '_', and behind the first also '-' and '.'"
    return f"{quoted(name)} is not a name", hint + allowed


def id_problem(text: str) -> tuple[str, str] | None:
    """Return what is wrong with the id of a machine (message, hint); None if it is a good one."""
    if text.lower().replace("-", "") in _WORTHLESS_IDS:
        return f"{quoted(text)} is no usable id: many machines have it", "an id tells one machine from all others"
    if len(text) > LONGEST_ID or not text.isprintable():
        message = f"{len(text)} characters are no id"
        return message, f"an id is one line of printable text, at most {LONGEST_ID} characters"
    return None
