"""Local users and groups by name: which uids a name in `security.roles` stands for.

Knows the system's user and group database, no role. A name that is both is the user: a group of the same name has that
user as its member anyhow. Odd: members of a group are those it lists and those whose own group it is.
"""

from __future__ import annotations

import grp
import pwd


def uids_of(name: str) -> frozenset[int] | None:
    """Return the uids of a user or a group; None when the system knows neither."""
    try:
        return frozenset({pwd.getpwnam(name).pw_uid})
    except (KeyError, ValueError):  # ValueError: no name of the system can be so, with U+0000 in it for example
        pass
    try:
        group = grp.getgrnam(name)
    except (KeyError, ValueError):
        return None
    own = {user.pw_uid for user in pwd.getpwall() if user.pw_gid == group.gr_gid}
    return frozenset(own.union(*(_uids_of_user(member) for member in group.gr_mem)))


def _uids_of_user(name: str) -> set[int]:
    """Return the uid of a user; nothing for a name that a group still lists and no user has."""
    try:
        return {pwd.getpwnam(name).pw_uid}
    except KeyError:
        return set()


def known_names() -> list[str]:
    """Return the names of all users and groups that the system lists."""
    return sorted({user.pw_name for user in pwd.getpwall()} | {group.gr_name for group in grp.getgrall()})
