"""Which names a party may take on the bus."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from ..errors import Denied, NameTaken, Overloaded, UsageError
from .ends import Party
from .messages import Hello, Role

SERVICE_NAME = re.compile(r"[a-z][a-z0-9_.:-]{0,62}\Z")

MAX_PARTIES = 4000
"""Of one node. Each is a connection and a file descriptor."""

_SHARES = {Role.LOOK: 0.5, Role.OPERATOR: 0.75, Role.ADMIN: 0.9, Role.COMPONENT: 1.0}
"""How much of that may be taken when another comes of that role: a component that is started anew finds room."""

MAX_SERVICES = 100
"""Of one party."""


def check_names(
    parties: Iterable[Party], reserved: Collection[str], party: Party | None, hello: Hello, role: Role, pid: int
) -> list[Party]:
    """Check what a party wants to be called and to serve; return its former connections, which it replaces.

    `party` is what it is known as. Raises NameTaken, Denied, UsageError, Overloaded.
    """
    parties = list(parties)
    most = int(MAX_PARTIES * _SHARES[role])
    if party is None and len(parties) >= most:
        raise Overloaded(f"{most} parties are on this bus already", "end some of them")
    if party and hello.name not in ("", party.name):
        raise NameTaken(f"this connection is '{party.name}' already and cannot become '{hello.name}'")
    if len(hello.services) > MAX_SERVICES:
        raise UsageError(f"{len(hello.services)} services of one party, at most {MAX_SERVICES} are allowed")
    replaced: list[Party] = []
    for name in dict.fromkeys([hello.name, *hello.services] if hello.name else hello.services):
        if not SERVICE_NAME.match(name):
            raise UsageError(
                f"'{name}' cannot be a name on the bus",
                "small letters, digits, - _ . : and a letter first",
            )
        if role < Role.OPERATOR:
            raise Denied(f"serving '{name}' needs the role operator", "see security.roles in the node's YAML")
        if role < Role.COMPONENT and (name in reserved or name.startswith(("controller.", "client-", "join-"))):
            raise Denied(f"the name '{name}' is reserved for covey's own components")
        for holder in parties:
            if holder is party or holder in replaced or not (holder.name == name or name in holder.services):
                continue
            if holder.pid and holder.pid == pid and name == hello.name:
                replaced.append(holder)
                continue
            raise NameTaken(f"'{name}' is served by process {holder.pid or 'of the daemon'} already")
    return replaced
