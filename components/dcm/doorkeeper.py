"""Whom the new node lets in: join tokens judged, proofs checked, on behalf of `newcomer.py` (SPEC 6.3). Pure.

A member knocks with a proof over its key, this node's key and the cluster's id; only who knows the secret of a token
that holds gets an answer, and with it a second nonce, over which the next message must prove again. Nothing is on the
disk until then. Every refusal looks the same from outside; here each has its reason, for counters and the audit log.

Odd: for a token that is not known a proof is checked all the same, against a secret that nobody has, so that the time
to a refusal tells nothing either.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from .definitions import KeptToken
from .messages import Admitted, Knock, Prepare
from .settings import MOST_VISITS
from .token import NONCE_BYTES, SECRET_BYTES, Reason, Transcript, prove, proved, wrong_with

NOBODYS = bytes(SECRET_BYTES)


class Door(msgspec.Struct, frozen=True):
    """What this node knows at the moment: its key, its mode, its clock (seconds since 1970), its tokens."""

    key: str = ""
    curve: bool = False
    clock: float = 0.0
    tokens: Mapping[str, KeptToken] = {}


class Visit(msgspec.Struct, frozen=True):
    """A member that was let in: what it said, and what it was answered."""

    knock: Knock
    transcript: Transcript
    admitted: Admitted


class Refusal(msgspec.Struct, frozen=True):
    """Why a message was refused; `token` is the id of the token it named, if any."""

    reason: Reason
    token: str = ""


class Doorkeeper:
    """The members that are let in, by transaction; at most `MOST_VISITS`, the oldest goes."""

    def __init__(self) -> None:
        self.visits: dict[str, Visit] = {}

    def knock(self, message: Knock, door: Door, by: str, nonce: bytes) -> Admitted | Refusal:
        """Judge a knock of the connection with the proved key `by`; `nonce` is new and random."""
        known = self.visits.get(message.transaction)
        if known is not None and not (door.curve and by != known.knock.key):
            return known.admitted if known.knock == message else Refusal("replayed", message.token)
        kept = door.tokens.get(message.token)
        wrong = wrong_with(door.tokens, message.token, door.clock, door.key)
        secret = kept.secret if kept is not None and kept.secret else NOBODYS
        said = Transcript(
            message.transaction, message.cluster_id, message.token, message.key, door.key, message.nonce[:NONCE_BYTES]
        )
        right = proved(message.proof, secret, "knock", said)
        if wrong or not right:
            return Refusal(wrong or "secret", message.token)
        if door.curve and message.key != by:
            return Refusal("key", message.token)
        both = msgspec.structs.replace(said, node_nonce=nonce)
        admitted = Admitted(message.transaction, nonce, prove(secret, "node", both))
        self.visits[message.transaction] = Visit(message, both, admitted)
        while len(self.visits) > MOST_VISITS:
            del self.visits[next(iter(self.visits))]
        return admitted

    def prepare(self, message: Prepare, door: Door, by: str, taken: Collection[str]) -> Visit | Refusal | None:
        """Judge a first Prepare: the visit it belongs to, why not, or None: mode open, and no token was given.

        `taken` are the tokens of other defines that are under way.
        """
        visit = self.visits.get(message.transaction)
        if visit is None:
            return Refusal("missing") if door.curve or message.proof else None
        token = visit.knock.token
        if door.curve and by != visit.knock.key:
            return Refusal("key", token)
        wrong = wrong_with(door.tokens, token, door.clock, door.key)
        if wrong or token in taken:
            return Refusal(wrong or "used", token)
        right = proved(message.proof, door.tokens[token].secret, "member", visit.transcript)
        if not right or message.cluster.id != visit.knock.cluster_id:
            return Refusal("secret", token)
        return visit
