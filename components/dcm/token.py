"""Join tokens: what `covey node prepare` prints, and the proofs that whoever has one can give (SPEC 6.3).

Pure. A token is one word that a shell leaves alone: `covey1` and 104 letters and digits in base32, which hold the
token's id, its secret, the node's public key, when it expires, and a checksum, so that one mistyped letter is found
before anything is asked. The secret itself never travels: both sides prove it over all that they said before.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from typing import Literal

import msgspec

from ...errors import TokenInvalid
from .definitions import KeptToken

PREFIX = "covey1"
ID_BYTES, SECRET_BYTES, KEY_BYTES, TIME_BYTES, SUM_BYTES = 8, 16, 32, 5, 4
NONCE_BYTES = 16
_LETTERS = (ID_BYTES + SECRET_BYTES + KEY_BYTES + TIME_BYTES + SUM_BYTES) * 8 // 5  # it comes out even: no padding

CLOCK_STEP = 300.0
"""Seconds a clock may have been set back since a token was made; further back its age means nothing any more."""

Reason = Literal["unknown", "expired", "used", "secret", "key", "missing", "replayed"]
"""Why a token was refused: for the node's own counters and audit log, never for the other side."""


class Token(msgspec.Struct, frozen=True):
    """A join token. `key` is the node's public key in hex, empty in mode open; `expires` is by the node's own clock."""

    id: str
    secret: bytes
    key: str
    expires: int

    def text(self) -> str:
        """Return it as people hand it on."""
        key = bytes.fromhex(self.key) if self.key else bytes(KEY_BYTES)
        body = bytes.fromhex(self.id) + self.secret + key + self.expires.to_bytes(TIME_BYTES, "big")
        return PREFIX + base64.b32encode(body + _sum(body)).decode().lower()


def parse(text: str) -> Token:
    """Return the token that was typed; raises TokenInvalid, with no word of what it holds."""
    word = text.strip().lower()
    hint = "copy the whole word that `covey node prepare` printed on the new node"
    if not word.startswith(PREFIX):
        raise TokenInvalid(f"this is no join token: it does not begin with {PREFIX!r}", hint)
    letters = word.removeprefix(PREFIX)
    if len(letters) != _LETTERS:
        raise TokenInvalid(f"a join token has {_LETTERS} characters behind {PREFIX!r}, this has {len(letters)}", hint)
    try:
        data = base64.b32decode(letters.upper())
    except (binascii.Error, ValueError):
        raise TokenInvalid("a join token has only the letters a to z and the digits 2 to 7", hint) from None
    body, found = data[:-SUM_BYTES], data[-SUM_BYTES:]
    if found != _sum(body):
        raise TokenInvalid("this join token was mistyped: its checksum is wrong", hint)
    key = body[ID_BYTES + SECRET_BYTES : -TIME_BYTES]
    return Token(
        body[:ID_BYTES].hex(),
        body[ID_BYTES : ID_BYTES + SECRET_BYTES],
        key.hex() if any(key) else "",
        int.from_bytes(body[-TIME_BYTES:], "big"),
    )


def _sum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=SUM_BYTES, person=b"covey token").digest()


def wrong_with(tokens: Mapping[str, KeptToken], token: str, clock: float, key: str) -> Reason | None:
    """Return why a token of this node cannot be used now, None when it can. `key` is the node's present public key."""
    kept = tokens.get(token)
    if kept is None:
        return "unknown"
    if kept.used:
        return "used"
    if not kept.made - CLOCK_STEP <= clock < kept.expires:
        return "expired"
    return None if kept.key == key else "key"


def spend(kept: KeptToken) -> KeptToken:
    """Return a token as it is remembered once it cannot be used any more: its secret is nobody's business."""
    return msgspec.structs.replace(kept, used=True, secret=b"")


class Transcript(msgspec.Struct, frozen=True, array_like=True):
    """Everything that both sides of a define said before one of them proves that it knows the secret."""

    transaction: str
    cluster_id: str
    token: str
    member_key: str
    node_key: str
    member_nonce: bytes
    node_nonce: bytes = b""


Label = Literal["knock", "node", "member"]
"""Which proof it is: of the member before the node says anything, of the node, of the member over both nonces."""


def prove(secret: bytes, label: Label, transcript: Transcript) -> bytes:
    """Return the proof of knowing the secret: HMAC-SHA256 (RFC 2104) over the label and the transcript."""
    said = msgspec.msgpack.encode(("covey join 1", label, transcript))
    return hmac.digest(secret, said, "sha256")


def proved(proof: bytes, secret: bytes, label: Label, transcript: Transcript) -> bool:
    """Say whether a proof is right, in the same time whether it is or not."""
    return hmac.compare_digest(proof, prove(secret, label, transcript))
