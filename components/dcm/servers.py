"""The verbs of `dcm` that concern registry servers: define, undefine, start and stop one (SPEC 4).

The registry itself decides and carries out; here is who asked, for the audit log, and the words of the command line.
What a change leads to on the server's own node, its registry does when this node's copy of the list is renewed.
"""

from __future__ import annotations

from typing import Any

from ...bus.messages import Role
from ...bus.service import Request, verb
from .settings import SERVERS_TIME
from .trusting import TrustVerbs


class ServerVerbs(TrustVerbs):
    """Verbs over registry servers. Each returns `{index, servers, learners, stopped}` when its change is committed."""

    @verb(Role.ADMIN)
    async def registry_define_server(self, request: Request, *, number: int) -> dict[str, Any]:
        """Make a node a registry server: it is filled, and votes as soon as its copy is level."""
        return await self._change(request, "registry_define_server", "define_server", number)

    @verb(Role.ADMIN)
    async def registry_undefine_server(self, request: Request, *, number: int, forced: bool = False) -> dict[str, Any]:
        """Make a registry server a client again. The last one cannot go."""
        return await self._change(request, "registry_undefine_server", "undefine_server", number, forced)

    @verb(Role.ADMIN)
    async def registry_online(self, request: Request, *, number: int) -> dict[str, Any]:
        """Start the registry server of a node, which was put offline."""
        return await self._change(request, "registry_online", "server_online", number)

    @verb(Role.ADMIN)
    async def registry_offline(self, request: Request, *, number: int, forced: bool = False) -> dict[str, Any]:
        """Stop the registry server of a node; refused when the quorum would be lost, unless `forced`."""
        return await self._change(request, "registry_offline", "server_offline", number, forced)

    async def _change(
        self, request: Request, what: str, registry_verb: str, number: int, forced: bool = False
    ) -> dict[str, Any]:
        about = {"number": number, "forced": forced or None}
        given: dict[str, Any] = {"forced": True} if forced else {}
        time = min(request.budget or SERVERS_TIME, SERVERS_TIME)
        async with self._audited(request, what, **about):
            self._home.here()
            return dict(
                await self._home.bus.call(
                    "registry", registry_verb, server=number, request_id=request.request_id, timeout=time, **given
                )
            )
