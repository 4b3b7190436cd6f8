"""The times and limits of the DCM, each with its unit and why it is what it is. Knows nothing but numbers.

None is set by users yet. The machines take them from here; tests read them from here too, so a change is made once.
"""

from __future__ import annotations

# --- the node's life ------------------------------------------------------------------------------------------

READ_AGAIN = 1.0
"""Seconds until the global configuration is read once more, when it could not be: a registry elects in that time."""

ASK_VERDICT = (2.0, 30.0)
"""Seconds without a readable registry until other nodes are asked whether this one is still defined, and the longest
pause until they are asked again. It doubles in between: when a whole cluster starts at once, everybody waits."""

VERDICT_PLACES = 6
"""Places that are asked at a time, the registry servers' first; the next time it goes on from there."""

CONTROLLERS_TIME = 1.0
"""Seconds the controllers have to be ready, before discovery goes ahead with those that are. They need 0.3 s."""

DISCOVERY_WAIT = 0.5
"""Seconds that a join waits for discovery (SPEC 6.4); what comes later is written when it comes."""

DISCOVERY_TIME = 15.0
"""Seconds until the Resource Manager's answer is given up: longer than a controller's own deadline of 10 s."""

CONFIGURED_TIME = 10.0
"""Seconds for the view to call this node online; then Liveness is asked once more."""

ANNOUNCE_AGAIN = 1.0
"""Seconds until Liveness is told once more that this node is configured."""

LEAVE_TIME = 3.0
"""Seconds Liveness has to take this node out of the view, before the components stop anyway."""

PRIMARY_LOOK = 0.2
"""Seconds between two looks whether the registry still has a primary, while this node waits to be out of the view."""

STOP_TIME = 5.0
"""Seconds each component has to stop; then it is killed."""

SHUTDOWN_TIME = 18.0
"""Seconds for an orderly end of the daemon; the parent kills what is left after 20 s."""

BACK_OFF = (0.2, 5.0)
"""Seconds until a crashed component is started again: the first time, the longest. It doubles in between."""

CONTROLLER_BACK_OFF = (1.0, 60.0)
"""The same for processes of controllers: nobody else waits for them, so they may take longer."""

CRASHES = 5
CRASH_WINDOW = 60.0
"""So many crashes of one component within so many seconds put the node offline in order (SPEC 2.4)."""

TRY_AGAIN = (30.0, 300.0)
"""Seconds until a node that gave up so joins again by itself: the first time, the longest. It doubles in between."""

TRIES_WINDOW = 1800.0
"""Seconds after which a time it gave up no longer counts for that pause."""

CORES_KEPT = 20
"""Records of crashes that are kept in `core/`."""

# --- moving ---------------------------------------------------------------------------------------------------

MOVE_TIME = 30.0
"""Seconds a moving node has to be online in the target, from the written pointer or from the daemon's start on; after
that it goes back. A registry that just elects takes two."""

POINT_AGAIN = 1.0
"""Seconds until pointers that could not be written are written again."""

# --- defining a node ------------------------------------------------------------------------------------------

TELL_AGAIN = 0.5
"""Seconds until an unanswered message is sent again."""

PATIENCE = 6.0
"""Seconds for each of: the new node's answer, the registry, the new node's commit, the undoing."""

DEFINE_ROUNDS = 6
"""Times that a number or name chosen by the member may turn out to be taken, until it gives up."""

DOUBT = 30.0
"""Seconds without a word from the member until the new node asks the cluster: longer than a define lasts."""

IMPATIENT = 8.0
"""The same, once somebody else wants to define this node to that cluster."""

ASK_AGAIN = (2.0, 60.0)
"""Seconds between two questions to the cluster: the first pause, the longest. It doubles in between."""

ASKED = 8
"""Endpoints a new node in doubt is told to ask."""

REMEMBERED = 64
"""Ended defines whose messages are still answered as they ended."""

MOST_PENDING = 8
"""Defines of one node that may be in doubt at a time, each to another cluster."""

JOIN_TOPICS = ("dcm.join_message", "dcm.verdict", "dcm.whereabouts", "dcm.called")
"""What may be asked on the join port, with any key; each proves or checks for itself who asks."""

COMMIT_BYTES = 3000
"""Bytes of a definition that travel with the commit: the join port takes messages of 4 KiB, and five servers fit."""

COMMIT_ADDRESSES = 3
"""Addresses of another node that travel with a commit which does not fit whole."""

# --- join tokens ----------------------------------------------------------------------------------------------

TOKEN_LIFE = (60.0, 3600.0, 7 * 86400.0)
"""Seconds that a join token holds: least, usual, most. An hour is enough to walk from one machine to another."""

MOST_TOKENS = 8
"""Unused join tokens of a node that hold at a time."""

TOKENS_KEPT = 32
"""Join tokens that are remembered after they were used or expired, so that the audit log can say which it was."""

MOST_VISITS = 16
"""Members that have knocked with a right token and did not go on: a define under way is not among them."""

# --- asking others --------------------------------------------------------------------------------------------

READ_TIME = 3.0
"""Seconds for one read of the registry."""

WRITE_TIME = 5.0
"""Seconds for one transaction."""

TELL_TIME = 3.0
"""Seconds for one message between two DCMs and its answer: a dial takes up to 2 s."""

SERVERS_TIME = 20.0
"""Seconds for one change of the registry servers to be committed: a primary that goes hands over first."""

WAY_TIME = 1.5
"""Seconds for one address of another node to answer when it is tried: a define waits for it."""

HEALTH_TIME = 5.0
"""Seconds for another node to say how it is: longer than it tries its ways."""

NEIGHBOURS = 8
"""Other nodes that a node tries to reach for a look at the whole cluster: enough to see each from several sides."""

STATUS_TIME = 2.0
"""Seconds for a component of this node to say how it is."""

CONTROL_TIME = 25.0
"""Seconds for another node to accept going online, or to be offline."""

LONG_POLL = 20.0
"""Seconds of one long poll for changes: two idle questions in that time cost nothing."""

LOOK_AGAIN = 1.0
"""Seconds after an error of a long poll."""

BROKER_AGAIN = 0.3
"""Seconds until the broker is told again who this node is, when that failed."""

ROOM_LOOK = 5.0
"""Seconds between two looks whether what a full disk did not take is still to be written."""

ANSWER_FIRST = 0.05
"""Seconds for the answer "erased" to leave an undefined node, before its broker forgets whom it trusted."""

LEFT_TIME = 10.0
"""Seconds for the view to let a node go that is to be undefined."""
