"""From what a client asks to the body of a log entry: everything that can be refused is refused here. Pure.

Knows no state but what the question says; comparisons are judged later, in log order, by the store.
"""

from __future__ import annotations

from ...errors import BadArguments, Refused, TooLarge
from .entries import Committed, Transacted
from .keys import check_key, pack_value
from .messages import AppendSystem, Operation, Transact
from .settings import OPERATIONS, TRANSACTION_BYTES, VALUE_BYTES
from .store import SERVERS_KEY

SERVERS_HINT = "covey registry define-server N, undefine-server N, online N, offline N"
NAME_BYTES = 512
KEEP = 4_096
Packed = tuple[tuple[str, bytes | None], ...]


def transaction(question: Transact) -> Transacted:
    """Return the entry of a transaction; raises BadKey, BadArguments, TooLarge, Refused."""
    _check_id(question.id)
    if max(len(question.compare), len(question.then), len(question.otherwise)) > OPERATIONS:
        raise TooLarge(f"a transaction holds at most {OPERATIONS} comparisons and operations", "make several")
    compare = tuple((check_key(one.key), one.mod_revision) for one in question.compare)
    then, otherwise = _branch(question.then), _branch(question.otherwise)
    size = 0
    for key, value in (*then, *otherwise):
        size += len(key) + len(value or b"")
    if size > TRANSACTION_BYTES:
        raise TooLarge(f"the transaction has {size} bytes, at most {TRANSACTION_BYTES} are allowed", "make several")
    return Transacted(question.id, compare, then, otherwise, question.system, question.since)


def _branch(operations: tuple[Operation, ...]) -> Packed:
    if not operations:
        return ()
    packed: dict[str, bytes | None] = {}
    for operation in operations:
        key = check_key(operation.key)
        if key in packed:
            raise BadArguments(f"the key {key!r} stands twice in one transaction", "what should come last, alone")
        if key == SERVERS_KEY:
            raise Refused(f"{SERVERS_KEY} is written by changes of the registry servers only", SERVERS_HINT)
        packed[key] = pack_value(key, operation.value) if operation.op == "put" else None
    return tuple(packed.items())


def system_entry(question: AppendSystem) -> Committed:
    """Return the entry of a component; raises BadArguments, TooLarge."""
    _check_id(question.id)
    for name, text in (("kind", question.kind), ("slot", question.slot)):
        if len(text.encode()) > NAME_BYTES:
            raise BadArguments(f"the {name} of a system entry has more than {NAME_BYTES} bytes")
    if not question.kind:
        raise BadArguments("a system entry needs a kind", "begin it with the component's name: `liveness.view`")
    if not 0 <= question.keep <= KEEP:
        raise BadArguments(f"keep={question.keep}: a slot keeps 0 to {KEEP} entries")
    if len(question.body) > VALUE_BYTES:
        raise TooLarge(f"the system entry has {len(question.body)} bytes, at most {VALUE_BYTES} are allowed")
    return Committed(question.id, question.kind, question.slot, question.body, question.keep)


def _check_id(request: str) -> None:
    if len(request.encode()) > NAME_BYTES:
        raise BadArguments(f"the request id has more than {NAME_BYTES} bytes")
