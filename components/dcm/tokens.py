"""The join tokens that this node handed out: made, listed, made void (SPEC 6.3).

They are kept in `clusters.json`, mode 0600, because the write that commits a define also uses up the token that allowed
it. Knows the clock and the disk; what a token is, and when it holds, is `token.py`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any

import msgspec

from ...errors import Busy, UsageError
from .definitions import Clusters, KeptToken
from .home import Home
from .settings import MOST_TOKENS, TOKEN_LIFE, TOKENS_KEPT
from .token import ID_BYTES, SECRET_BYTES, Token, spend, wrong_with


class Tokens:
    """This node's join tokens."""

    def __init__(self, home: Home) -> None:
        self._home = home

    async def make(self, life: float) -> Token:
        """Make one that holds for `life` seconds; it is on the disk before it is returned."""
        least, _, most = TOKEN_LIFE
        if not least <= life <= most:
            raise UsageError(f"a join token cannot hold for {life:g} s", "from 1m to 7d; usual is 1h")
        now = time.time()
        token = Token(secrets.token_hex(ID_BYTES), secrets.token_bytes(SECRET_BYTES), self._home.key, int(now + life))
        kept = KeptToken(token.secret, token.key, now, float(token.expires))

        def added(clusters: Clusters) -> Clusters:
            tokens = _without_old(clusters.tokens, now)
            usable = [one for one in tokens if wrong_with(tokens, one, now, self._home.key) is None]
            if len(usable) >= MOST_TOKENS:
                raise Busy(
                    f"{len(usable)} join tokens of this node wait to be used already",
                    "use one, wait until they expire, or make them void with `covey node prepare --cancel`",
                )
            return msgspec.structs.replace(clusters, tokens={**tokens, token.id: kept})

        await self._change(added)
        return token

    async def cancel(self) -> list[str]:
        """Make every unused token void; return their ids."""
        void: list[str] = []

        def cancelled(clusters: Clusters) -> Clusters:
            void[:] = [token for token, kept in clusters.tokens.items() if not kept.used]
            spent = {token: spend(kept) for token, kept in clusters.tokens.items()}
            return msgspec.structs.replace(clusters, tokens=spent)

        await self._change(cancelled)
        return void

    def ls(self) -> list[dict[str, Any]]:
        """Return the tokens that are remembered, without their secrets."""
        tokens, now = self._home.clusters.tokens, time.time()
        taken = {pending.token for pending in self._home.clusters.pending.values()}
        found = []
        for token, kept in sorted(tokens.items(), key=lambda item: item[1].made):
            state: str = wrong_with(tokens, token, now, self._home.key) or ("in use" if token in taken else "unused")
            found.append({"id": token, "state": state, "made": kept.made, "expires": kept.expires})
        return found

    async def _change(self, changed: Any) -> None:
        self._home.clusters = await asyncio.to_thread(self._home.store.change, changed)


def _without_old(tokens: dict[str, KeptToken], now: float) -> dict[str, KeptToken]:
    """Drop the oldest of those that cannot be used any more."""
    over = sorted((kept.made, token) for token, kept in tokens.items() if kept.used or kept.expires <= now)
    gone = {token for _, token in over[: max(0, len(tokens) - TOKENS_KEPT + 1)]}
    return {token: kept for token, kept in tokens.items() if token not in gone}
