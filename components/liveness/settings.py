"""The times and limits of liveness, each with its unit, range and why it is what it is.

Knows nothing but numbers. Only `interval` is set by users (`liveness: {interval: 1s}` in the node's YAML) and
must be the same on all nodes; the rest are here so that tests and the simulator can vary them.
"""

from __future__ import annotations

import msgspec


class Settings(msgspec.Struct, frozen=True):
    """All times are in seconds.

    interval: between two heartbeats to the same peer; 0.1 to 30. One second finds a dead node within five at
    2
        messages a second and peer.
    patience: intervals of silence before a peer is probed; 2 or more. Three: two lost in a row happen on a
    bad day. probes, probe_gap, grace: a silent peer gets that many fast heartbeats, that far apart, and is
    suspect when the
        grace has passed without an answer. One second is the price of not accusing for a hiccup.
    late: a machine whose step came this much after its deadline was not running, so its silence proves
    nothing. batch: what becomes ready within this time goes into one view. Short, for a joining node waits it
    out. hold: a view that removes somebody waits up to this long for others who just came under suspicion, so
    that nodes
        that die together leave together. Their last heartbeats are up to one interval apart, hence one
        interval.
    word: without word from a leader for so long a node calls itself not quorate (SPEC 11.4). Longer than the
        election of a new primary takes, shorter than the patience of whoever relies on the list.
    repeat: how often what matters (join, leave, commit) is said again until its effect is seen. answer: how
    long a client waits for `configured` or `leave` before it gets a timeout. check: how long a joiner whose
    number is in use waits for the old boot id to answer. tasks: a node whose liveness tasks failed for so
    long stops its heartbeats: a hung node is not alive. Longer than
        the restart of the DCM takes.
    kept: views kept at each node and in the log. A node that missed more is told to take the list as it is.
    """

    interval: float = 1.0
    patience: int = 3
    probes: int = 3
    probe_gap: float = 0.3
    grace: float = 1.0
    late: float = 0.5
    batch: float = 0.1
    hold: float = 1.0
    word: float = 8.0
    repeat: float = 0.5
    answer: float = 10.0
    check: float = 1.0
    tasks: float = 10.0
    kept: int = 256

    @classmethod
    def for_interval(cls, interval: float) -> Settings:
        """Return the settings that go with an interval: what must outlast several heartbeats grows with it."""
        usual = cls()
        return cls(
            interval=interval,
            hold=max(usual.hold, interval),
            word=max(usual.word, 4 * interval),
            tasks=max(usual.tasks, 8 * interval),
        )
