"""The security of a broker in mode curve: who may shake hands on which port, whose messages count, what is told of it.

Puts together what `trust`, `join_gate`, `zap` and `security` each know a part of; the broker asks it at each message
of a peer, since a handshake is judged only once and a key may be revoked meanwhile. Every refusal is counted, and told
as an event now and then. Knows no routing.

Odd: until the broker is told its node for the first time it knows no key at all; peers are then told to come again
soon, not that they are unknown.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any

import zmq

from ..errors import KeyMalformed
from .join_gate import Gate
from .messages import NodeInfo, Peer
from .security import JOIN_DOMAIN, PEER_DOMAIN, Keys, secure_client, secure_server
from .trust import Refusal, Refusals, Trust
from .zap import Arrivals, Zap

Context = zmq.Context[zmq.Socket[bytes]]


class Guard:
    """Let in whom the cluster's definitions name, and strangers as far as the join gate goes.

    `context` is that of the broker's tcp sockets alone; `counters` gets `refused_REASON`; `tell` is called with what is
    to be told.
    """

    def __init__(
        self,
        context: Context,
        keys: Keys,
        topics: Collection[str],
        counters: Counter[str],
        tell: Callable[[Refusal], None],
    ) -> None:
        self.keys = keys
        self.trust = Trust()
        self.gate = Gate(topics)
        self._context = context
        self._refusals = Refusals(counters)
        self._tell = tell
        self._configured = False
        self._loop = asyncio.get_running_loop()
        self._arrivals: list[Arrivals] = []
        self._zap = Zap(context, {PEER_DOMAIN: self._judge_peer, JOIN_DOMAIN: self._judge_join}, self.refused)

    def close(self) -> None:
        """Stop; before the sockets it watches are closed."""
        for each in self._arrivals:
            each.close()
        self._arrivals.clear()
        self._zap.close()

    def configure(self, node: NodeInfo, peers: Mapping[int, Peer]) -> frozenset[tuple[str, int]]:
        """Take the keys of the cluster's nodes; return the pairs (key, node) that may not speak any more.

        This node's own key is among them: a copy of this node on another machine is found by asking it.
        """
        self._configured = True
        own = {node.number: self.keys.public} if node.number else {}
        return self.trust.renew({number: peer.key for number, peer in peers.items()} | own)

    def state(self) -> dict[str, Any]:
        """Return this node's public key, how many keys are trusted, and how many handshakes were judged."""
        return {"key": self.keys.public, "trusted": self.trust.keys, "handshakes": self._zap.asked}

    # --- sockets ------------------------------------------------------------------------------------------------

    def secure_peers(self, socket: zmq.Socket[bytes]) -> None:
        """Prepare the socket of the peer port: nodes of the cluster alone."""
        secure_server(socket, self.keys, PEER_DOMAIN)
        self._arrivals.append(Arrivals(socket, self.refused))

    def secure_join(self, socket: zmq.Socket[bytes]) -> Arrivals:
        """Prepare a socket of the join port: any key. Whoever asks closes what is returned, before the socket."""
        secure_server(socket, self.keys, JOIN_DOMAIN)
        return Arrivals(socket, self.refused)

    def secure_link(self, socket: zmq.Socket[bytes], peer: Peer) -> None:
        """Prepare a socket that dials: it speaks with the holder of the peer's key alone."""
        if not peer.key:
            name = peer.name or " or ".join(peer.addresses)
            raise KeyMalformed(f"no key of {name} is known, so it cannot be dialled: this node is in mode curve")
        secure_client(socket, self.keys, peer.key)

    # --- messages -----------------------------------------------------------------------------------------------

    def refuses(self, key: str, number: int | None, frame: zmq.Frame) -> bool:
        """Say whether a message may not count that came from this proved key for that node; if so it is counted.

        `frame` is one of the message's, for the address in the report.
        """
        if self.trust.speaks_for(key, number):
            return False
        self.refused(self.trust.why_not(key, number), address_of(frame), key)
        return True

    def refused(self, reason: str, address: str = "", key: str = "") -> None:
        """Count a refusal; tell of it when it is time."""
        for refusal in self._refusals.note(self._loop.time(), reason, address, key):
            self._tell(refusal)

    def sweep(self) -> None:
        """Tell what was held back. To be called about every second."""
        for refusal in self._refusals.due(self._loop.time()):
            self._tell(refusal)

    # --- handshakes ---------------------------------------------------------------------------------------------

    def _judge_peer(self, key: str, address: str) -> str:
        return self.trust.why_not(key) if self._configured else "not_ready"

    def _judge_join(self, key: str, address: str) -> str:
        return self.gate.knock(self._loop.time(), address)


def address_of(frame: zmq.Frame) -> str:
    """Return the address that a message came from; "" when libzmq does not know."""
    try:
        return str(frame.get("Peer-Address"))
    except zmq.ZMQError:
        return ""
