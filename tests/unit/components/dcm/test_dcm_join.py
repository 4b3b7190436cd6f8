"""Define a node with a join token (SPEC 6.3): nobody is conscripted, nobody walks in, and a token is used once.

The world is `define_world`, in mode curve: every message arrives over a connection that proved a key.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from covey.components.dcm import define as member
from covey.components.dcm import entries, newcomer
from covey.components.dcm.decision import Request
from covey.components.dcm.definitions import ClusterDefinition, NodeDefinition, NodeTable, Replica, ServerList
from covey.components.dcm.doorkeeper import Doorkeeper
from covey.components.dcm.lookup import decode
from covey.components.dcm.messages import (
    Abort,
    Aborted,
    Admitted,
    Commit,
    Committed,
    Declined,
    Knock,
    Prepare,
    Prepared,
)
from covey.components.dcm.settings import COMMIT_BYTES, MOST_VISITS
from covey.components.dcm.token import Token, Transcript, prove
from covey.errors import BadArguments, CoveyError, IdentityClone, TokenRefused, from_wire
from define_world import CLUSTER, EPOCH, MEMBER_KEY, NODE_KEY, STRANGER_KEY, World, node
from hypothesis import given, settings
from hypothesis import strategies as st

DEFINED = {"definition_id": f"{0:0>31}d", "key": NODE_KEY}


def with_token(world: World, **wanted: Any) -> Token:
    token = world.prepare()
    world.request(token=token, **wanted)
    return token


def outcome(world: World, number: int = 0) -> CoveyError | None:
    return world.ended[number].error


# --- the plain way --------------------------------------------------------------------------------------------


def test_a_node_is_defined_with_its_token_and_its_key() -> None:
    world = World()
    token = with_token(world)
    world.run()
    assert world.steps == [f"d{step}" for step in range(1, 15)]
    assert world.ended[0].node == world.local == node(2, **DEFINED)
    assert world.tokens[token.id].used
    assert world.tokens[token.id].secret == b""
    assert world.refused == []
    world.check()


def test_in_mode_open_a_token_may_be_given_and_is_checked() -> None:
    world = World()
    token = world.prepare(curve=False)
    world.request(token=token)
    world.request(token=msgspec.structs.replace(token, secret=b"x" * 16))
    world.run()
    assert world.local is not None
    assert world.tokens[token.id].used
    assert isinstance(outcome(world, 1), TokenRefused)
    world.check()


# --- who is refused, and that all refusals look alike ---------------------------------------------------------

Forge = Callable[[World, Token], Token]


def expired(world: World, token: Token) -> Token:
    world.tokens[token.id] = msgspec.structs.replace(world.tokens[token.id], made=EPOCH - 90, expires=EPOCH)
    return token


def used(world: World, token: Token) -> Token:
    kept = world.tokens[token.id]
    world.tokens[token.id] = msgspec.structs.replace(kept, used=True, secret=b"")
    return token


def clock_set_back(world: World, token: Token) -> Token:
    world.tokens[token.id] = msgspec.structs.replace(world.tokens[token.id], made=EPOCH + 900)
    return token


def another_key_now(world: World, token: Token) -> Token:
    world.tokens[token.id] = msgspec.structs.replace(world.tokens[token.id], key="f" * 64)
    return token


FORGERIES: dict[str, tuple[str, Forge]] = {
    "unknown": ("unknown", lambda _, token: msgspec.structs.replace(token, id="f" * 16)),
    "wrong secret": ("secret", lambda _, token: msgspec.structs.replace(token, secret=b"\0" * 16)),
    "of another node": ("secret", lambda _, token: msgspec.structs.replace(token, key="f" * 64)),
    "expired": ("expired", expired),
    "used": ("used", used),
    "clock set back": ("expired", clock_set_back),
    "another key now": ("key", another_key_now),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_used_or_expired_token_changes_nothing(name: str) -> None:
    reason, forge = FORGERIES[name]
    world = World()
    token = forge(world, world.prepare())
    before = dict(world.registry.data)
    world.request(token=token)
    world.run()
    assert isinstance(outcome(world), TokenRefused)
    assert world.refused == [reason]
    assert world.written == []
    assert world.registry.data == before
    world.check()


def test_all_refusals_are_one_and_the_same_to_the_outside() -> None:
    said = set()
    for _, forge in FORGERIES.values():
        world = World()
        token = forge(world, world.prepare())
        world.request(token=token)
        answers: list[Any] = []
        machine = world.members[0]
        assert machine is not None and machine._knock is not None
        world.to_newcomer(machine._knock, answers.append)
        world.run()
        said |= {msgspec.structs.replace(answer) for answer in answers}
    assert len(said) == 1
    (answer,) = said
    assert isinstance(answer, Declined)
    assert isinstance(from_wire(answer.code, answer.message), TokenRefused)


def knock(token: Token, *, transaction: str = "s", key: str = STRANGER_KEY, cluster: str = CLUSTER.id) -> Knock:
    said = Transcript(transaction, cluster, token.id, key, token.key, b"s" * 16)
    return Knock(transaction, token.id, cluster, key, b"s" * 16, prove(token.secret, "knock", said))


def tell(world: World, message: Any, by: str) -> Any:
    """Send the new node one message, and return its answer."""
    answers: list[Any] = []
    world.to_newcomer(message, answers.append, by)
    world.run()
    (answer,) = answers
    return answer


def test_without_a_proof_nothing_is_said_and_nothing_written() -> None:
    world = World()
    token = world.prepare()
    prepare = Prepare("s", CLUSTER, "d" * 32, ("127.1.0.1:7401",))
    for message in [
        prepare,
        msgspec.structs.replace(prepare, proof=b"x" * 32),
        msgspec.structs.replace(prepare, definition_id=world.registry.nodes()[0].definition.definition_id),
        Knock("s", token.id, CLUSTER.id, STRANGER_KEY, b"n" * 16, b""),
        Knock("s", "", "", "", b"", b""),
    ]:
        answer = tell(world, message, STRANGER_KEY)
        assert isinstance(answer, Declined), message
        assert answer.code == "dcm.token_refused"
    assert world.written == []
    assert world.refused == ["missing", "missing", "missing", "secret", "unknown"]


def test_a_knock_seen_by_another_cannot_be_said_again() -> None:
    world = World()
    token = world.prepare()
    heard = knock(token, key=MEMBER_KEY)
    assert isinstance(tell(world, heard, STRANGER_KEY), Declined)
    assert isinstance(tell(world, heard, MEMBER_KEY), Admitted)
    assert isinstance(tell(world, heard, STRANGER_KEY), Declined)
    assert isinstance(tell(world, msgspec.structs.replace(heard, nonce=b"z" * 16), MEMBER_KEY), Declined)
    assert world.refused == ["key", "key", "replayed"]
    assert world.written == []


def test_the_second_proof_is_over_both_nonces() -> None:
    world = World()
    token = world.prepare()
    first = knock(token, key=MEMBER_KEY)
    admitted = tell(world, first, MEMBER_KEY)
    said = Transcript("s", CLUSTER.id, token.id, MEMBER_KEY, NODE_KEY, b"s" * 16, admitted.nonce)
    right = Prepare("s", CLUSTER, "d" * 32, (), proof=prove(token.secret, "member", said))
    other = ClusterDefinition("other", "f" * 32)
    for wrong, by in [
        (msgspec.structs.replace(right, proof=first.proof), MEMBER_KEY),
        (msgspec.structs.replace(right, proof=admitted.proof), MEMBER_KEY),
        (msgspec.structs.replace(right, cluster=other), MEMBER_KEY),
        (right, STRANGER_KEY),
    ]:
        assert isinstance(tell(world, wrong, by), Declined)
    assert world.refused == ["secret", "secret", "secret", "key"]
    assert world.written == []
    assert isinstance(tell(world, right, MEMBER_KEY), Prepared)


def test_a_node_that_cannot_prove_the_secret_is_told_nothing_of_the_cluster() -> None:
    token = Token("1" * 16, b"s" * 16, NODE_KEY, int(EPOCH) + 60)
    machine = member.DefineMember(
        Request("127.1.0.2:7400", token=token),
        transaction="t",
        definition_id="d" * 32,
        cluster=CLUSTER,
        ask=(),
        key=MEMBER_KEY,
        nonce=b"n" * 16,
    )
    told = [effect.message for effect in machine.step(0.0, member.Begun()) if isinstance(effect, member.Tell)]
    assert [type(message) for message in told] == [Knock]
    effects = machine.step(0.1, member.Heard(Admitted("t", b"x" * 16, b"y" * 32)))
    (finish,) = effects
    assert isinstance(finish, member.Finish)
    assert isinstance(finish.error, TokenRefused)


@pytest.mark.parametrize("message", [Commit, Abort, Prepare])
def test_what_was_prepared_is_in_the_hands_of_that_member_alone(message: type[Any]) -> None:
    """Before and after a restart of the new node: the key of the member is in the pending record."""
    world = World()
    with_token(world)
    while not world.disk:
        world.run(world.agenda[0][0])
    (pending,) = world.disk.values()
    replica = Replica(
        CLUSTER, node(2, definition_id=pending.definition_id, key=NODE_KEY), ServerList((1,), 1), NodeTable()
    )
    messages = {
        Commit: Commit(pending.transaction, replica),
        Abort: Abort(pending.transaction),
        Prepare: Prepare(pending.transaction, CLUSTER, pending.definition_id, ()),
    }
    answers: list[Any] = []
    for restart in (False, True):
        if restart:
            world.newcomer = newcomer.DefineNewcomer()
            world.newcomer.step(world.now, newcomer.Restarted(tuple(world.disk.values())))
        world.to_newcomer(messages[message], answers.append, STRANGER_KEY)
    assert world.refused == ["key", "key"]
    assert world.local is None
    assert list(world.disk) == [pending.transaction]


def test_a_commit_for_another_key_is_refused() -> None:
    world = World()
    with_token(world)
    while not world.disk:
        world.run(world.agenda[0][0])
    (pending,) = world.disk.values()
    replica = Replica(
        CLUSTER, node(2, definition_id=pending.definition_id, key="f" * 64), ServerList((1,), 1), NodeTable()
    )
    answers: list[Any] = []
    world.to_newcomer(Commit(pending.transaction, replica), answers.append)
    world.run()
    assert answers[0].code == "dcm.not_defined"


# --- a token is used once -------------------------------------------------------------------------------------


def test_a_used_token_is_refused_afterwards() -> None:
    world = World()
    token = with_token(world)
    world.run()
    world.local = None  # whatever became of the definition
    world.registry.undo(DEFINED["definition_id"])
    world.request(token=token)
    world.run()
    assert isinstance(outcome(world, 1), TokenRefused)
    assert world.refused == ["used"]


@pytest.mark.parametrize("gap", [0.0, 0.005, 0.015, 0.03, 0.05, 0.08])
def test_of_two_defines_with_one_token_at_once_exactly_one_wins(gap: float) -> None:
    world = World()
    token = world.prepare()
    world.request(token=token)
    world.after(gap, lambda: world.request(token=token) and None)
    world.run()
    assert sorted(end.node is not None for end in world.ended.values()) == [False, True]
    assert world.tokens[token.id].used
    world.check()


def test_one_token_does_not_let_two_clusters_in() -> None:
    world = World()
    token = world.prepare()
    said = {}
    for transaction, cluster, key in (
        ("a", CLUSTER, MEMBER_KEY),
        ("b", ClusterDefinition("other", "f" * 32), STRANGER_KEY),
    ):
        answers: list[Any] = []
        world.to_newcomer(knock(token, transaction=transaction, key=key, cluster=cluster.id), answers.append, key)
        while not answers:
            world.run(world.agenda[0][0])
        both = Transcript(transaction, cluster.id, token.id, key, NODE_KEY, b"s" * 16, answers[0].nonce)
        proof = prove(token.secret, "member", both)
        said[key] = Prepare(transaction, cluster, transaction * 32, (), proof=proof)
    for key, message in said.items():  # both are let in before either goes on
        world.to_newcomer(message, lambda answer: None, key)
    assert world.refused == ["used"]
    assert [pending.transaction for pending in world.disk.values()] == ["a"]


@pytest.mark.parametrize("seed", range(40))
def test_of_three_with_one_token_on_a_bad_network_at_most_one_wins(seed: int) -> None:
    world = World(seed, loss=0.2, double=0.3, late=1.0)
    token = world.prepare()
    for _ in range(3):
        world.after(world.random.random(), lambda: world.request(token=token) and None)
    world.run(600)
    world.loss = 0.0
    world.run(2000)
    assert sum(end.node is not None for end in world.ended.values()) <= 1
    assert world.tokens[token.id].used == (world.local is not None or len(world.registry.nodes()) == 2)
    world.check()


def test_a_token_whose_define_came_to_nothing_may_be_tried_again() -> None:
    world = World()
    token = world.prepare()
    world.request(token=token, id="another machine")
    world.run()
    assert not world.tokens[token.id].used
    world.request(token=token)
    world.run()
    assert outcome(world, 1) is None
    assert world.local is not None
    world.check()


def test_a_token_copied_to_another_machine_is_not_used_twice() -> None:
    """A clone has the disk: the key, and the token as it was before it was used."""
    world = World()
    token = world.prepare()
    copied = dict(world.tokens)
    world.request(token=token)
    world.run()
    original, world.local, world.tokens, world.disk = world.local, None, copied, {}
    world.newcomer = newcomer.DefineNewcomer()

    world.request(token=token, number=7, name="clone")  # the same id, offline: an admin's new define of that machine
    world.run()
    assert isinstance(outcome(world, 1), TokenRefused)
    world.id = "machine-3"  # an id of its own, and still that key
    other = world.prepare(2)
    world.request(token=other)
    world.run()
    assert isinstance(outcome(world, 2), (IdentityClone, TokenRefused))
    assert [entry.definition for entry in world.registry.nodes()] == [node(1), original]
    assert world.local is None


def test_two_nodes_with_one_key_exactly_one_is_written() -> None:
    world = World()
    one, other = node(2, key=NODE_KEY), node(3, key=NODE_KEY)
    assert [world.registry.txn(entries.define(each))[0] for each in (one, other)] == [True, False]
    world.registry.check()


def test_the_registry_takes_a_token_once() -> None:
    world = World()
    assert world.registry.txn(entries.define(node(2), token="1" * 16))[0]
    assert not world.registry.txn(entries.define(node(3), token="1" * 16))[0]
    (entry,) = [each for each in world.registry.nodes() if each.definition.number == 2]
    assert world.registry.txn(entries.undefine(entry))[0]
    assert not world.registry.txn(entries.define(node(3), token="1" * 16))[0], "undefined later: it was used"


# --- faults ---------------------------------------------------------------------------------------------------


def work_of_a_define_with_a_token() -> int:
    world = World()
    with_token(world)
    world.run()
    return world.count


WORK = work_of_a_define_with_a_token()


def check(world: World, token: Token) -> None:
    world.check()
    assert world.tokens[token.id].used or world.local is None, "a define without a used token"
    if world.tokens[token.id].used and world.local is None:
        standing = world.registry.standing(DEFINED["definition_id"])
        assert standing == "gone", "used, and neither defined nor rolled back"


@pytest.mark.parametrize("who", ["member", "newcomer"])
@pytest.mark.parametrize("at", range(1, WORK + 1))
def test_a_crash_of_either_side_at_any_step_leaves_all_or_none(who: str, at: int) -> None:
    world = World()
    world.crash_at = {at: who}
    token = with_token(world)
    world.run()
    check(world, token)
    world.crash_at = {}
    if world.local is None:  # the same token, or a new one, brings it in
        again = token if not world.tokens[token.id].used else world.prepare(9)
        number = world.request(token=again)
        world.run()
        assert outcome(world, number) is None
        world.check()


@pytest.mark.parametrize("at", list(itertools.combinations(range(1, WORK + 4), 2)))
def test_two_crashes(at: tuple[int, int]) -> None:
    for who in itertools.product(["member", "newcomer"], repeat=2):
        world = World()
        world.crash_at = dict(zip(at, who, strict=True))
        token = with_token(world)
        world.run()
        check(world, token)


@pytest.mark.parametrize("seed", range(200))
def test_lost_doubled_and_late_messages_with_crashes(seed: int) -> None:
    world = World(seed, loss=0.25, double=0.3, late=3.0)
    chance = random.Random(seed)
    world.crash_at = {chance.randrange(1, 40): chance.choice(["member", "newcomer"]) for _ in range(seed % 4)}
    token = with_token(world)
    world.run(600)
    world.loss = 0.0
    world.run(2000)
    check(world, token)


def test_old_messages_said_again_after_the_end_change_nothing() -> None:
    world = World()
    said: list[Any] = []
    hear = world.to_newcomer

    def listen(message: Any, back: Callable[[Any], None], by: str | None = None) -> None:
        said.append(message)
        hear(message, back, by)

    world.to_newcomer = listen  # type: ignore[method-assign]
    token = with_token(world)
    world.run()
    local, tokens, data = world.local, dict(world.tokens), dict(world.registry.data)
    written = len(world.written)
    for by in (MEMBER_KEY, STRANGER_KEY):
        for restarted in (False, True):
            if restarted:
                world.newcomer = newcomer.DefineNewcomer()
            for message in list(said):
                answer = []
                hear(message, answer.append, by)
                world.run()
                assert isinstance(answer[0], (Admitted, Committed, Aborted, Declined))
    assert (world.local, world.tokens, world.registry.data) == (local, tokens, data)
    assert len([each for each in world.written[written:] if not isinstance(each, newcomer.JoinNow)]) == 0
    assert world.tokens[token.id].used


# --- whatever is said -----------------------------------------------------------------------------------------

TEXT = st.one_of(
    st.sampled_from(["t0", "s", "", CLUSTER.id, "1" * 16, "0" * 15 + "1", MEMBER_KEY, NODE_KEY]), st.text()
)
BYTES = st.one_of(st.just(b"\1" * 16), st.binary(max_size=64))
CLUSTERS = st.one_of(st.just(CLUSTER), st.builds(ClusterDefinition, TEXT, TEXT))
NODES = st.builds(NodeDefinition, st.integers(-1, 9), TEXT, TEXT, TEXT, st.tuples(TEXT), st.integers(), TEXT)
REPLICAS = st.builds(Replica, CLUSTERS, NODES, st.just(ServerList((1,), 1)), st.just(NodeTable()))
SAID = st.one_of(
    st.builds(Knock, TEXT, TEXT, TEXT, TEXT, BYTES, BYTES),
    st.builds(Admitted, TEXT, BYTES, BYTES),
    st.builds(Prepare, TEXT, CLUSTERS, TEXT, st.tuples(TEXT), st.none() | TEXT, BYTES),
    st.builds(Commit, TEXT, REPLICAS),
    st.builds(Abort, TEXT),
    st.builds(Committed, TEXT),
    st.builds(Declined, TEXT, TEXT, TEXT),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(SAID, st.sampled_from([STRANGER_KEY, MEMBER_KEY, NODE_KEY, ""])), max_size=8))
def test_a_stranger_changes_nothing_whatever_it_says(said: list[tuple[Any, str]]) -> None:
    """Not while a define of somebody else is under way either (its member has another key)."""
    for busy in (False, True):
        world = World()
        token = world.prepare()
        if busy:
            world.request(token=token)
            while not world.disk:
                world.run(world.agenda[0][0])
        before = (dict(world.disk), world.local, dict(world.tokens), len(world.written))
        for message, by in said:
            if by != MEMBER_KEY or not busy:
                world.to_newcomer(message, lambda answer: None, by)
        assert (world.disk, world.local, world.tokens, len(world.written)) == before
        world.run()
        assert (world.local is not None) == busy
        world.check()


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_an_error_and_nothing_else(body: bytes) -> None:
    try:
        decode(body)
    except BadArguments:
        pass


# --- bounds ---------------------------------------------------------------------------------------------------


def test_members_that_knock_and_do_not_go_on_are_bounded() -> None:
    world = World()
    token = world.prepare()
    keeper = Doorkeeper()
    for number in range(3 * MOST_VISITS):
        keeper.knock(knock(token, transaction=str(number)), world.myself().door, STRANGER_KEY, b"n" * 16)
    assert len(keeper.visits) == MOST_VISITS


@pytest.mark.parametrize("nodes", [1, 5, 40, 1000])
@pytest.mark.parametrize("servers", [1, 5])
def test_a_commit_fits_into_a_message_of_the_join_port(nodes: int, servers: int) -> None:
    key = "a" * 64
    many = {
        number: node(
            number, key=key, id="i" * 64, addresses=tuple(f"10.{net}.100.{number % 250}/24" for net in range(6))
        )
        for number in range(1, max(nodes, servers) + 1)
    }
    own = node(5000, key=key)
    whole = Replica(CLUSTER, own, ServerList(tuple(range(1, servers + 1)), 1, 9), NodeTable({**many, 5000: own}, 9))
    sent = member.fitting(whole)
    assert len(msgspec.msgpack.encode(Commit("t" * 32, sent))) <= COMMIT_BYTES + 200
    assert set(sent.servers.servers) <= set(sent.nodes.nodes)
    assert sent.nodes.nodes[5000] == own
    assert (sent == whole) or sent.nodes.revision == 0
