"""Who caught a probe of a node could say it again after the node's death: it stayed a member as long as he went on.

A datagram that was signed was taken as a sign of life however often it came.
"""

from __future__ import annotations

import secrets

from covey.components.liveness import probes
from covey.components.liveness.messages import Heartbeat, HeartbeatAck
from msgspec import msgpack
from real_nodes import story

NET = "127.1.0.0/16"


def datagram(key: bytes, message: Heartbeat | HeartbeatAck) -> bytes:
    head, body = probes._HEAD.pack(probes._MAGIC, 2, 1), msgpack.encode(message)
    return head + probes._mac(key, head, body) + body


@story
async def test_each_probe_and_each_answer_counts_once() -> None:
    heard: list[int] = []
    told: dict[int, bytes] = {}
    one = probes.Probes(1, lambda _, message: heard.append(message.beat), told.__setitem__, lambda _: None)
    one._places = {NET: {}, "other": {}}
    one.introduce(2)
    theirs = secrets.token_bytes(32)
    one.learn(2, theirs)
    for kind, key in ((Heartbeat, theirs), (HeartbeatAck, told[2])):
        heard.clear()
        five, six = (datagram(key, kind("b2", (1, 1), beat, network=NET)) for beat in (5, 6))
        for data in (five, five, six, five, six):
            one._came(data)
        one.learn(2, theirs)  # said again twice a minute: it changes nothing
        one._came(six)
        assert heard == [5, 6]
        one._came(datagram(key, kind("b2", (1, 1), 6, network="other")))
        assert heard == [5, 6, 6], "another network, another adapter: not the same probe"
    assert one.counters["repeated"] == 8

    new = secrets.token_bytes(32)
    one.learn(2, new)  # its liveness process was restarted and counts from 1; what it answers, this node counts
    for message, key in (
        (Heartbeat("b2", (1, 1), 1, network=NET), new),
        (HeartbeatAck("b2", (1, 1), 7, network=NET), told[2]),
    ):
        one._came(datagram(key, message))
    one._came(datagram(told[2], HeartbeatAck("b2", (1, 1), 6, network=NET)))
    one._came(six)
    assert heard == [5, 6, 6, 1, 7]
    one.close()
