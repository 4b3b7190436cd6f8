"""Which nodes are registry servers, how many are a majority, and how one change leads to the next set. Pure.

One server comes or goes at a time, so majorities of the sets before and after always share a server (Raft thesis 4.1).
A server comes as a *learner*: it is filled and counts for nothing; when its copy is nearly level the primary makes it a
*voter* by an entry of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from ...errors import Busy, NotFound, Refused
from .entries import Configured
from .keys import unpack_value
from .messages import ChangeServers
from .store import SERVERS_KEY, Store

if TYPE_CHECKING:
    from .raft import Raft

Change = Literal["define", "undefine", "start", "stop"]


def majority(servers: Configured) -> int:
    """Return how many voters must hold an entry, or give their vote."""
    return len(servers.voters) // 2 + 1


def tolerates(servers: Configured) -> int:
    """Return how many voters may be lost while the others still are a majority."""
    return len(servers.voters) - majority(servers)


def all_of(servers: Configured) -> tuple[int, ...]:
    """Return voters and learners."""
    return (*servers.voters, *servers.learners)


def of_store(store: Store) -> Configured:
    """Return the servers as the applied state names them; none when nothing was applied yet."""
    item = store.get(SERVERS_KEY)
    value: Any = unpack_value(item.value) if item else {}
    return Configured(*(tuple(value.get(name, ())) for name in ("servers", "learners", "stopped")))


def plain(servers: Configured) -> dict[str, list[int]]:
    """Return the servers as people see them."""
    return {
        "servers": list(servers.voters),
        "learners": list(servers.learners),
        "stopped": list(servers.stopped),
    }


def changed(servers: Configured, change: Change, number: int) -> Configured | None:
    """Return the servers after a change, None when it is so already; raises Refused when it cannot be."""
    voters, learners, stopped = servers.voters, servers.learners, servers.stopped
    known = number in all_of(servers)
    if change == "define":
        return None if known else Configured(voters, (*learners, number), stopped)
    if change == "undefine":
        if not known:
            return None
        if voters == (number,):
            raise Refused(
                f"node {number} is the last registry server, and it cannot go",
                "define another one first: covey registry define-server N",
            )
        return Configured(_without(voters, number), _without(learners, number), _without(stopped, number))
    if not known:
        raise Refused(f"node {number} is no registry server", f"covey registry define-server {number} makes it one")
    if (number in stopped) == (change == "stop"):
        return None
    if change == "start":
        return Configured(voters, learners, _without(stopped, number))
    if set(voters) <= {number, *stopped}:
        raise Refused(
            f"node {number} runs the only registry server that is not stopped",
            "nobody could start it again; `covey node offline` stops the whole node",
        )
    return Configured(voters, learners, (*stopped, number))


def promoted(servers: Configured, number: int) -> Configured:
    """Return the servers after a learner became a voter."""
    return Configured((*servers.voters, number), _without(servers.learners, number), servers.stopped)


def wanted(raft: Raft, store: Store, question: ChangeServers, now: float) -> Configured | None:
    """Return the servers after a change by this primary, None when they are so already.

    Raises Busy while the last change may still be taken back, NotFound for a number that no node has, Refused for
    what would be no registry any more.
    """
    reign, log = raft.reign, raft.log
    assert reign is not None
    if log.servers_index > log.committed or reign.handing:
        raise Busy("another change of the registry servers is under way", "wait for its end and ask again")
    if question.server not in all_of(log.servers) and store.get(f"/nodes/{question.server}") is None:
        raise NotFound(f"no node has the number {question.server}", "`covey node ls` lists the nodes")
    after = changed(log.servers, question.change, question.server)
    if after is None:
        return None
    if question.change in ("undefine", "stop") and not question.forced:
        left = reign.healthy(now) & set(after.voters) - {*after.stopped, question.server}
        if len(left) < majority(after):
            raise Refused(
                f"without node {question.server} only {len(left)} of {len(after.voters)} registry servers would answer,"
                f" and {majority(after)} are needed",
                "bring the others back first; covey registry status shows them",
            )
    return after


def _without(numbers: tuple[int, ...], number: int) -> tuple[int, ...]:
    return tuple(one for one in numbers if one != number)
