"""The verbs of `dcm` by which trust is given and taken: join tokens, the join port, the verdict, forgetting a cluster.

Whoever comes in by the join port has proved a key and nothing else: its role is the least, and the broker lets it ask
only what `settings.JOIN_TOPICS` names. Which key it is comes from the broker, never from a message.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec

from ...bus.messages import Role
from ...bus.service import Request, verb
from ...errors import Ambiguous, CoveyError, Denied, NodeOnline, NotFound, Refused
from .clusters import ClusterVerbs
from .daemon import Daemon
from .definer import Definer
from .home import Home
from .lookup import Verdict, ask_verdict
from .places import who_knows
from .settings import TOKEN_LIFE
from .tokens import Tokens
from .undefining import IDLE

log = logging.getLogger(__name__)


class TrustVerbs(ClusterVerbs):
    """Verbs over tokens, definitions in doubt and clusters that are gone."""

    def __init__(self, home: Home, daemon: Daemon, definer: Definer) -> None:
        super().__init__(home, daemon)
        self._definer = definer
        self._tokens = Tokens(home)

    # --- for other DCMs ---------------------------------------------------------------------------------------

    @verb()
    async def join_message(self, request: Request, *, body: bytes) -> bytes:
        """Take a message of a define from the join port; return the answer. It has to prove a join token."""
        key = request.key
        if not key:
            raise Denied("messages of a define come by the join port", "use `covey node define`")
        return await self._definer.heard(body, key)

    @verb(Role.COMPONENT)
    async def define_message(self, *, body: bytes) -> bytes:
        """Take a message of a define from another DCM in mode open; return the answer."""
        if self._home.curve:
            raise Denied("this node is in mode curve: it is defined by its join port, with a join token")
        return await self._definer.heard(body, "")

    @verb()
    async def verdict(self, request: Request, *, cluster_id: str, definition_id: str) -> dict[str, Any]:
        """Say whether a definition of this cluster is over, to the node that it concerns (SPEC 5.7); change nothing."""
        key = request.key
        try:
            found = await self._definer.judge.verdict(cluster_id, definition_id, key)
        except Denied:
            await self._definer.refused("not_yours", key)
            raise
        answer: dict[str, Any] = msgspec.to_builtins(found)
        return answer

    # --- join tokens ------------------------------------------------------------------------------------------

    @verb(Role.ADMIN)
    async def node_prepare(self, request: Request, *, ttl: float = TOKEN_LIFE[1]) -> dict[str, Any]:
        """Make a one-time join token of this node that holds for `ttl` seconds; return it with its id and expiry."""
        async with self._audited(request, "node_prepare", ttl=ttl) as noted:
            token = await self._tokens.make(ttl)
            noted["token"] = token.id
        home = self._home
        return {
            "token": token.text(),
            "id": token.id,
            "expires": token.expires,
            "key": token.key,
            "name": home.name,
            "addresses": home.endpoints(),
        }

    @verb(Role.ADMIN)
    async def node_tokens(self) -> dict[str, Any]:
        """Return this node's join tokens, without their secrets, and how often which reason let nobody in."""
        return {"tokens": self._tokens.ls(), "refused": dict(sorted(self._definer.counters.items()))}

    @verb(Role.ADMIN)
    async def node_tokens_cancel(self, request: Request) -> dict[str, Any]:
        """Make every unused join token of this node void; return their ids."""
        async with self._audited(request, "node_tokens_cancel") as noted:
            noted["tokens"] = await self._tokens.cancel()
        return {"cancelled": noted["tokens"]}

    # --- a cluster that is gone -------------------------------------------------------------------------------

    @verb(Role.ADMIN)
    async def node_forget(self, request: Request, *, which: str) -> dict[str, Any]:
        """Erase this node's local data of a cluster, on a person's word: for one of which no server is left to ask.

        `which` is its name or its id.
        """
        async with self._audited(request, "node_forget", cluster=which) as noted:
            cluster_id, name = self._known(which)
            noted["cluster"] = cluster_id
            current = self._home.clusters.current == cluster_id
            if current and self._daemon.machine.state not in IDLE:
                state = self._daemon.machine.state
                raise NodeOnline(f"this node is {state} in {name}", "`covey node offline` first")
            verdict = await self._asked(cluster_id)
            if verdict is not None and verdict.standing == "defined":
                raise Refused(
                    f"{name} is there, and lists this node ({verdict.place} says so): only a cluster that is gone is "
                    "forgotten",
                    "`covey node undefine` on one of its nodes",
                )
            await self._definer.forget(cluster_id)
            proof = verdict if verdict is not None and verdict.standing == "gone" else None
            await self._undefiner.erase(cluster_id, proof, "a person said so")
            return {"name": name, "id": cluster_id, "proved": proof is not None}

    def _known(self, typed: str) -> tuple[str, str]:
        """Return id and name of the cluster that a person means: one that it is defined to, or is to be."""
        clusters = self._home.clusters
        known = {each.cluster.id: each.cluster.name for each in clusters.pending.values()}
        return _named(typed, known | {cluster: each.name for cluster, each in clusters.defined().items()})

    def _defined_to(self, typed: str) -> tuple[str, str]:
        """Return id and name of the cluster that a person means, of those that this node is defined to."""
        return _named(typed, {cluster: each.name for cluster, each in self._home.clusters.defined().items()})

    async def _asked(self, cluster_id: str) -> Verdict | None:
        """Ask all nodes of a cluster at once; None when none answers, as when nothing here says where they are."""
        store = self._home.store
        try:
            node = await asyncio.to_thread(store.node, cluster_id)
            if node is None:
                return None
            servers, table = await asyncio.gather(
                asyncio.to_thread(store.servers, cluster_id), asyncio.to_thread(store.nodes, cluster_id)
            )
        except CoveyError as why:
            log.info("%s: nobody can be asked: %s", cluster_id, why)
            return None
        places = who_knows(node, servers, table)
        answers = await asyncio.gather(*(ask_verdict(self._home.bus, [each], cluster_id, node) for each in places))
        said = {answer.standing: answer for answer in answers if answer is not None}
        return said.get("defined") or said.get("gone")


def _named(typed: str, known: dict[str, str]) -> tuple[str, str]:
    if typed in known:
        return typed, known[typed]
    found = sorted(cluster for cluster, name in known.items() if name == typed)
    if len(found) > 1:
        raise Ambiguous(f"{len(found)} clusters here are named {typed!r}", "use the id: " + ", ".join(found))
    if not found:
        names = ", ".join(sorted(known.values())) or "none"
        raise NotFound(f"this node has no data of a cluster {typed!r}", f"it has: {names}")
    return found[0], typed
