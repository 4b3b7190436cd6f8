"""Every error a user can meet: one class, one stable dotted code, one exit code each.

The docstring of a class is what `covey explain CODE` prints: what it means, then what to do. Knows nothing of the
rest of covey. Errors cross the bus as `(code, message, hint)` and come back as the same class through `from_wire`;
a code this version does not know comes back as `CoveyError` with that code.
"""

from __future__ import annotations

from typing import Any, ClassVar

EXIT_CODES: dict[int, str] = {
    0: "ok",
    1: "failed, or not implemented yet",
    2: "usage: the command line or the arguments are wrong",
    3: "a predicate is false, or the cluster is not quorate",
    4: "not found",
    5: "refused by permission, policy or vote",
    6: "the registry is read-only or without quorum",
    7: "timeout; what was asked may still happen",
    8: "identity conflict",
    9: "no daemon answers on this state folder",
    10: "invalid file",
}


class CoveyError(Exception):
    """Something failed that has no code of its own. The message says what; the daemon's log has the story."""

    code: str = "core.error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class NotImplementedYet(CoveyError):
    """This is specified and not built yet; the message names the point of the specification. Nothing was done."""

    code = "core.not_implemented"


class InternalError(CoveyError):
    """A bug of covey or of a plugin. The daemon's log holds the traceback; please report it with that log."""

    code = "core.internal"


class UsageError(CoveyError):
    """The command line or the arguments of a call are wrong. Nothing was done; `--help` shows the right form."""

    code = "core.usage"
    exit_code = 2


class NotFound(CoveyError):
    """What was asked for does not exist. `ls` of the same noun shows what does."""

    code = "core.not_found"
    exit_code = 4


class Ambiguous(UsageError):
    """A name fits several things. Use the id: the message lists the choices."""

    code = "core.ambiguous"


class Refused(CoveyError):
    """The operation is not allowed in the present state. The message gives the reason; nothing was changed."""

    code = "core.refused"
    exit_code = 5


class PredicateFalse(CoveyError):
    """A condition that was asked for does not hold. For `put --if-revision`: read again, then decide."""

    code = "core.predicate_false"
    exit_code = 3


class Timeout(CoveyError):
    """No answer came within the time allowed. It may still happen: read before you ask again."""

    code = "core.timeout"
    exit_code = 7


class InvalidFile(CoveyError):
    """A file does not hold what it must. Every finding has file:line:column, what is allowed and a suggestion."""

    code = "config.invalid"
    exit_code = 10


# --- the bus -------------------------------------------------------------------------------------------------


class NoDaemon(CoveyError):
    """No covey daemon answers on this state folder. Start one with `covey node start FILE`, or give `--state`."""

    code = "bus.no_daemon"
    exit_code = 9


class NoService(NotFound):
    """No party of that name is on the node's bus. `covey bus status` lists services; it may not be started yet."""

    code = "bus.no_service"


class NoVerb(UsageError):
    """The service has no such verb. The message lists those it has."""

    code = "bus.no_verb"


class BadArguments(UsageError):
    """The arguments of a call do not fit the verb. The message names the argument and what is expected."""

    code = "bus.bad_arguments"


class Denied(Refused):
    """Your role may not do this. `security.roles` in the node's YAML gives roles to local users and groups."""

    code = "bus.denied"


class NameTaken(Refused):
    """Another live party already serves that name on this node. Stop it first, or choose another name."""

    code = "bus.name_taken"


class ServiceDied(CoveyError):
    """The called party died before it answered. What was asked may have happened: read before you ask again."""

    code = "bus.service_died"


class ConnectionLost(CoveyError):
    """The local broker went away and came back. What was asked may have happened: read before you ask again."""

    code = "bus.connection_lost"


class Unreachable(CoveyError):
    """The other node cannot be reached at any of its addresses. `covey liveness status` shows who is alive."""

    code = "bus.unreachable"


class UnknownNode(Unreachable):
    """The cluster has no node of that number, as far as this node knows. `covey node ls` lists the nodes."""

    code = "bus.unknown_node"
    exit_code = 4


class Overloaded(CoveyError):
    """A queue is full: the called party does not keep up. Try again later."""

    code = "bus.overloaded"


class TooLarge(Refused):
    """A message or value is larger than allowed. Values in the registry hold at most 1 MiB."""

    code = "bus.too_large"


class Malformed(CoveyError):
    """Bytes that came over the bus are not a message of a known protocol version. They were dropped."""

    code = "bus.malformed"


# --- security ------------------------------------------------------------------------------------------------


class KeyFileError(CoveyError):
    """The node's key file cannot be used. Nothing was started, and no other key was made in its place."""

    code = "security.key"
    exit_code = 10


class KeyMissing(KeyFileError):
    """There is no key file where the node's YAML says. `covey node init` makes one; or put the lost one back.

    A new key makes the node a stranger to its cluster: the others know it by the old one. So none is made unasked.
    """

    code = "security.key_missing"


class KeyUnreadable(KeyFileError):
    """The key file is there and cannot be read, or is no file. The message gives the reason."""

    code = "security.key_unreadable"


class KeyMode(KeyFileError):
    """Others than its owner may read or write the key file: `chmod 600` it. Who may have read it has the key.

    If others could have read it, undefine the node, make a new key and define the node again.
    """

    code = "security.key_mode"


class KeyOwner(KeyFileError):
    """The key file belongs to another user than the one the daemon runs as. `chown` it, or start as its owner."""

    code = "security.key_owner"


class KeySymlink(KeyFileError):
    """The key file is a symbolic link, which could be turned elsewhere. Name the file itself in the node's YAML."""

    code = "security.key_symlink"


class KeyMalformed(KeyFileError):
    """The key file does not hold a key pair as `covey node init` writes it. Put the right file back."""

    code = "security.key_malformed"


class KeyMismatch(KeyFileError):
    """Public and secret key in the file do not belong together: it was edited, or two files were mixed."""

    code = "security.key_mismatch"


class KeyExists(Refused):
    """A file of that name exists, and a key is never overwritten. Choose another name, or move the old one away."""

    code = "security.key_exists"


class NoCurve(CoveyError):
    """This libzmq cannot encrypt: no CURVE in it, or older than 4.3.5. `pip install -U pyzmq` brings a good one."""

    code = "security.no_curve"


# --- registry ------------------------------------------------------------------------------------------------


class RegistryError(CoveyError):
    """The registry could not do what was asked; the message says why."""

    code = "registry.error"


class KeyNotFound(NotFound):
    """The registry holds no such key. `covey registry ls PREFIX` shows the keys there are."""

    code = "registry.not_found"


class ReadOnly(RegistryError):
    """Writes are not open yet or not any more. `covey registry status` says why (`closed_because`)."""

    code = "registry.read_only"
    exit_code = 6


class DiskFull(ReadOnly):
    """The registry's disk has no room, so nothing was written. Free space there; writes open again by themselves."""

    code = "registry.disk_full"


class DiskFailed(RegistryError):
    """The disk refused a write or a sync, so the registry ended. The message names file, place and error number."""

    code = "registry.disk_failed"


class NoQuorum(RegistryError):
    """No primary registry server can be reached, so nothing current can be read or written; stale reads may work."""

    code = "registry.no_quorum"
    exit_code = 6


class NotPrimary(NoQuorum):
    """The server asked is not the primary. Clients follow the hint by themselves; seen only when they gave up."""

    code = "registry.not_primary"


class RequestExpired(CoveyError):
    """A write was tried again so late that nobody remembers whether it was done. Read, then decide."""

    code = "registry.request_expired"


class Damaged(NoQuorum):
    """A file of this server's copy is damaged. The message names the path and the position; it was not read on."""

    code = "registry.damaged"


class BackupDamaged(InvalidFile):
    """A file is no backup of a registry, or not whole. The message names the place; nothing of it was used."""

    code = "registry.backup_damaged"


class WrongCluster(Refused):
    """The request belongs to another cluster than the one this service serves. No data was given or changed."""

    code = "registry.wrong_cluster"


class CompareFailed(PredicateFalse):
    """A comparison of the transaction is false, so nothing was written. Read the key again, then decide."""

    code = "registry.compare_failed"


class ReservedKey(Denied):
    """Users write below `/app/` only; all other keys belong to components."""

    code = "registry.reserved_key"


class BadKey(UsageError):
    """A key is an absolute path like `/app/name`: slash-separated, no empty part, at most 512 bytes of UTF-8."""

    code = "registry.bad_key"


class Compacted(RegistryError):
    """The changes from that revision are no longer kept. List the prefix, then watch from the list's revision + 1."""

    code = "registry.compacted"


# --- groups --------------------------------------------------------------------------------------------------


class GroupsError(CoveyError):
    """Group Services could not do what was asked; the message says why."""

    code = "groups.error"


class CoordinatorChanged(GroupsError):
    """The coordinator went away before the decision was durable, so nobody got it. Propose again."""

    code = "groups.coordinator_changed"


class NotMember(Refused):
    """Only a member of the group may do this. Join it first."""

    code = "groups.not_member"


class Frozen(GroupsError):
    """This node has no contact to the quorum, so its groups stand still until it has."""

    code = "groups.frozen"
    exit_code = 6


class Rejected(Refused):
    """The members voted against the proposal. The message names who and why."""

    code = "groups.rejected"


# --- liveness ------------------------------------------------------------------------------------------------


class StaleEpoch(CoveyError):
    """The primary changed in between, so what the old one asked for was refused. It is retried by itself."""

    code = "liveness.stale_epoch"


# --- configuration and identity ------------------------------------------------------------------------------


class LocalDamaged(CoveyError):
    """A file of the node's local configuration is torn or was edited. The message names the path; it was not used."""

    code = "dcm.local_damaged"
    exit_code = 10


class AlreadyRunning(Refused):
    """Another daemon runs on this state folder; the message gives its process id. Stop it, or use another folder."""

    code = "dcm.already_running"


class AlreadyDefined(Refused):
    """That cluster, node, number, name or address is defined already. Nothing was changed."""

    code = "dcm.already_defined"


class NotDefined(Refused):
    """This node is defined to no cluster (or not to that one). `covey node ls` and `covey cluster ls` show what is."""

    code = "dcm.not_defined"


class NodeOnline(Refused):
    """The node is online, and the operation needs it offline. `covey node offline` first."""

    code = "dcm.node_online"


class NotOnline(Refused):
    """The node is not online, and the operation needs it online. `covey node online` first."""

    code = "dcm.not_online"


class Busy(Refused):
    """Another operation of the same kind is under way. Wait for its end and ask again."""

    code = "dcm.busy"


class Preflight(Refused):
    """A node is not fit to be defined: it, or the way between it and the cluster, would not work. Each finding has a
    code of its own that can be explained. Nothing was changed; mend it, and define the node again.
    """

    code = "dcm.preflight"


class MoveFailed(CoveyError):
    """The node did not come online in the cluster it was to move to, so it goes back to where it was. The message says
    how far it got; `covey node boot-log` and the node's log say why. Ask again when that is mended."""

    code = "dcm.move_failed"


class TokenInvalid(UsageError):
    """That is no join token, or it was mistyped; nobody was asked. Copy the word that `covey node prepare` printed."""

    code = "dcm.token_invalid"


class TokenNeeded(Refused):
    """With `security: {mode: curve}` a node is defined only with a join token, which `covey node prepare` prints on the
    new node. Then: `covey node define ADDRESS --token T`. Nothing was asked or changed."""

    code = "dcm.token_needed"


class TokenRefused(Refused):
    """The other node does not accept the join token. It was used, has expired, or is of another node or key; which,
    only the audit log of the node that refused tells. `covey node prepare` there makes a new one. Nothing was changed.
    """

    code = "dcm.token_refused"


class KeyChanged(CoveyError):
    """This node's key is not the one with which it was defined, so the others do not know it. Put the old key file
    back, or undefine the node and define it again; `covey node forget` removes what is here. Nothing was changed."""

    code = "identity.key_changed"
    exit_code = 8


class IdentityUnreadable(CoveyError):
    """The node's original id cannot be read from its source. Nothing is decided and nothing deleted until it can."""

    code = "identity.unreadable"
    exit_code = 8


class IdentityConflict(CoveyError):
    """The machine's id is not the one expected. `covey node verdict` shows the three ids and the fix."""

    code = "identity.conflict"
    exit_code = 8


class IdentityClone(IdentityConflict):
    """Two machines claim one node (a copied disk or image). Nothing was changed; both machines are named."""

    code = "identity.clone"


# --- plugins, controllers, resources -------------------------------------------------------------------------


class PluginError(CoveyError):
    """A plugin could not be used; `covey plugin why NAME` shows the reason. Other plugins are not affected."""

    code = "plugin.failed"


class Retry(CoveyError):
    """The controller cannot do it just now and asks for another try later."""

    code = "resource.retry"


class Failed(CoveyError):
    """The controller tried and it did not work; trying again will not help. The message says what happened."""

    code = "resource.failed"


class ResourceNotFound(NotFound):
    """No such class or resource. `covey resource classes` and `covey resource ls CLASS` show what there is."""

    code = "resource.not_found"


class BadAttribute(UsageError):
    """A value does not fit what the class declares. `covey resource class CLASS` shows names, types and units."""

    code = "resource.bad_attribute"


class Unsupported(Refused):
    """The controller of this class cannot do that with its resources. See `covey resource class CLASS`."""

    code = "resource.unsupported"


class ResourceExists(Refused):
    """A resource with this key is there already. Nothing was defined; `covey resource set` changes it."""

    code = "resource.exists"


class UndeclaredAttribute(PluginError):
    """A controller reported an attribute its description does not declare, or of another type. It was not stored."""

    code = "plugin.undeclared_attribute"


class CycleError(CoveyError):
    """The declared needs form a circle, which is printed; nothing was started. Remove one of its arrows."""

    code = "plugin.cycle"


# --- the command line ----------------------------------------------------------------------------------------


class BadExpression(UsageError):
    """A filter, selection or condition makes no sense. The message shows the place and what is allowed there."""

    code = "expression.invalid"


class LabFailed(CoveyError):
    """A node of a lab did not start or did not go away. The message shows the end of its log."""

    code = "lab.failed"


class NoLab(NotFound):
    """There is no lab in that folder, or no such node in it. `covey lab up` makes one."""

    code = "lab.not_found"


def _classes(base: type[CoveyError]) -> list[type[CoveyError]]:
    return [base, *(found for child in base.__subclasses__() for found in _classes(child))]


def by_code() -> dict[str, type[CoveyError]]:
    """Return every known error class by its code."""
    return {found.code: found for found in _classes(CoveyError)}


def from_wire(code: str, message: str, hint: str = "", details: dict[str, Any] | None = None) -> CoveyError:
    """Rebuild an error that came over the bus: its own class when the code is known, else `CoveyError`."""
    found = by_code().get(code)
    error = (found or CoveyError)(message, hint, **(details or {}))
    if found is None:
        error.code = code
    return error
