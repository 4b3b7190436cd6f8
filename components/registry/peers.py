"""What registry servers say to one another: elections, the log on its way, snapshots, the repair of a damaged copy.

Knows only the shape of a message. All travel between two servers directly (`direct.py`), or as the verb `message`.
Every message names the generation of its sender's copy and an epoch; one of a lower generation is not heard at all.
None needs to arrive: each is repeated by its sender until the answer or a newer epoch makes it needless, and a
duplicate changes nothing. `life` is a random number that each start of a server draws: it tells an answer of before a
crash from one of after it. "Thesis" is Ongaro, Consensus: Bridging Theory and Practice (2014), the long text on Raft.
"""

from __future__ import annotations

from ...bus.machine import Message
from .messages import Phase


class PreVoteAsked(Message, frozen=True):
    """Would you vote for me in `epoch`? Asked by a server that misses its primary; changes nothing (thesis 9.6)."""

    gen: int
    epoch: int
    last_epoch: int
    last_index: int


class VoteAsked(Message, frozen=True):
    """Vote for me in `epoch`; my log ends at (`last_epoch`, `last_index`) (thesis 3.4).

    `handed`: the primary itself asked me to take over, so its being alive is no reason to refuse (thesis 3.10).
    """

    gen: int
    epoch: int
    last_epoch: int
    last_index: int
    handed: bool = False


class PreVoteGiven(Message, frozen=True):
    """Answer to `PreVoteAsked`; `epoch` is the epoch asked for when granted, else the answerer's own. Not granted it is
    also said to whoever leads in an older epoch or generation."""

    gen: int
    epoch: int
    granted: bool


class VoteGiven(Message, frozen=True):
    """Answer to `VoteAsked`, sent when it is durable; `epoch` is the answerer's own."""

    gen: int
    epoch: int
    granted: bool


class Append(Message, frozen=True):
    """Primary to server: the entries behind `previous`, whose digest is `chain`; without entries a heartbeat.

    `round` counts the primary's broadcasts: the answer repeats it, which proves that the primary was followed after
    that round began. `phase` and `writable` are what it says of itself (`messages.Leading`).
    """

    gen: int
    epoch: int
    round: int
    previous: int
    chain: bytes
    committed: int
    records: tuple[bytes, ...] = ()
    phase: Phase = "stale"
    writable: bool = False


class Appended(Message, frozen=True):
    """Answer to `Append` and to the last `Part`: this copy and the primary's are the same up to `match`, durably.

    `fits` false: nothing was taken, because the copy has no such entry; then `match` and `chain` are the end of the
    log as far as it may fit, and all up to `committed` does fit.
    """

    gen: int
    epoch: int
    life: int
    round: int
    fits: bool
    match: int
    chain: bytes
    committed: int


class Refill(Message, frozen=True):
    """Answer to `Append` of a server that has no sound copy: it is damaged, superseded, or was never filled."""

    gen: int
    epoch: int
    life: int
    round: int


class Part(Message, frozen=True):
    """Primary to server: bytes `offset` … of the snapshot record at `index`, which has `size` bytes in all."""

    gen: int
    epoch: int
    life: int
    round: int
    index: int
    size: int
    offset: int
    data: bytes


class PartTaken(Message, frozen=True):
    """Answer to `Part`: all bytes of the snapshot at `index` before `offset` are here."""

    gen: int
    epoch: int
    life: int
    round: int
    index: int
    offset: int


class TakeOver(Message, frozen=True):
    """Primary to the server that it chose: your log is level with mine, become primary now (thesis 3.10)."""

    gen: int
    epoch: int


class Reach(Message, frozen=True):
    """Server to server, by the brokers: this one listens here for direct links (`direct.py`). Repeated while needed."""

    endpoints: tuple[str, ...]


PeerMessage = (
    PreVoteAsked | VoteAsked | PreVoteGiven | VoteGiven | Append | Appended | Refill | Part | PartTaken | TakeOver
)
