"""The times and limits of liveness, each with its unit, range and why it is what it is.

Knows nothing but numbers. Only `interval` is set by users (`liveness: {interval: 1s}` in the node's YAML) and
must be the same on all nodes; the rest are here so that tests and the simulator can vary them.
"""

from __future__ import annotations

import msgspec


class Settings(msgspec.Struct, frozen=True):
    """All times are in seconds."""

    interval: float = 1.0
    """Between two heartbeats to the same peer, 0.1 to 30. One second finds a dead node within five, at 2 messages a
    second and peer."""
    patience: int = 3
    """Intervals of silence before a peer is probed, 2 or more. Three: two lost in a row happen on a bad day."""
    bad: int = 4
    """Of the last ten probes so many lost are a reason to probe, too, though something is heard now and then."""
    probes: int = 3
    """Fast heartbeats that a silent peer gets, `probe_gap` apart."""
    probe_gap: float = 0.3
    grace: float = 1.0
    """A probed peer without an answer for so long is suspect. One second is the price of not accusing for a hiccup."""
    late: float = 0.5
    """A machine whose step came this much after its deadline was not running, so its silence proves nothing."""
    unsure: float = 5.0
    """For so long after such a step a node is unsure of what it says of others."""
    doubt: float = 10.0
    """A member about whom its observers do not agree for so long is put on trial. Ten: a line that is bad for a few
    seconds mends itself, and who waits for the removal of others does not wait for ever."""
    trial: float = 1.5
    """How long a trial takes: the grace, and the time for the answers."""
    first_wait: float = 5.0
    """How long a node that was removed while it ran waits before it is let in again; twice as long each time."""
    longest_wait: float = 300.0
    """No wait is longer."""
    forgiven: float = 600.0
    """After so long without such a removal the waits begin anew."""
    batch: float = 0.1
    """What becomes ready within this time goes into one view, while several nodes come or anybody is going. Short, for
    a joining node waits it out."""
    hold: float = 1.0
    """A view that removes somebody waits up to this long for others who just came under suspicion: nodes that die
    together leave together. Their last heartbeats are up to one interval apart, hence one interval."""
    word: float = 8.0
    """Without word from a leader for so long a node calls itself not quorate (SPEC 11.4). Longer than the election of a
    new primary takes, shorter than the patience of whoever relies on the list."""
    repeat: float = 0.5
    """How often what matters (join, leave, commit) is said again until its effect is seen."""
    answer: float = 10.0
    """How long a client waits for `configured` or `leave` before it gets a timeout."""
    check: float = 1.0
    """How long a joiner whose number is in use waits for the old boot id to answer."""
    tasks: float = 10.0
    """A node whose liveness tasks failed for so long stops its heartbeats: a hung node is not alive. Longer than the
    restart of the DCM takes."""
    kept: int = 256
    """Views kept at each node and in the log. A node that missed more is told to take the list as it is."""

    def alert_every(self, members: int) -> float:
        """Return the seconds after which an accusation is said again: in a large cluster with a dead network all have
        one, and the leader is to hear a thousand a second at most."""
        return self.interval * max(1.0, members / 1000)

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
