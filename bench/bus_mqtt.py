"""Mosquitto in bench/bus.py, with paho: its own threads and callbacks, quality of service 0, no asyncio.

MQTT 3.1.1 has no request and reply: the number of a request is in its payload, the answers have a topic of their own.
The client asks the next from the callback of the last, which is the fastest that paho can.
"""

from __future__ import annotations

import threading
from typing import Any

import paho.mqtt.client as paho
from bus_common import (
    BURST,
    TEXT,
    WARM_UP,
    Meter,
    Shared,
    answer,
    clock,
    commands_sync,
    latency,
    pack,
    run,
    unpack,
)


def connected(said: dict[str, Any], topic: str = "", heard: Any = None) -> paho.Client:
    """Return a client whose network thread runs and whose subscription stands."""
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    up, subscribed = threading.Event(), threading.Event()
    client.on_connect = lambda *_: up.set()
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = heard
    client.max_queued_messages_set(0)
    client.connect("127.0.0.1", said["port"])
    client.loop_start()
    up.wait(10)
    if topic:
        client.subscribe(topic, 0)
        subscribed.wait(10)
    return client


def service(said: dict[str, Any]) -> None:
    def heard(client: paho.Client, _: Any, message: paho.MQTTMessage) -> None:
        request = unpack(message.payload)
        client.publish("answers", pack({"id": request["id"], "text": request["text"]}))

    client = connected(said, "echo", heard)
    for _ in commands_sync():
        pass
    client.loop_stop()


class Asker:
    """Keeps a number of requests on their way; its work is done in the network thread."""

    def __init__(self, said: dict[str, Any]) -> None:
        self.number = 0
        self.answered = 0
        self.began = 0.0
        self.begins = self.ends = 0.0
        self.first: tuple[float, int] = (0.0, 0)
        self.taken: list[float] = []
        self.one = False
        self.left = 0
        self.done = threading.Event()
        self.client = connected(said, "answers", self.heard)

    def ask(self) -> None:
        self.number += 1
        self.began = clock()
        self.client.publish("echo", pack({"id": self.number, "text": TEXT}))

    def heard(self, _: paho.Client, __: Any, message: paho.MQTTMessage) -> None:
        unpack(message.payload)
        now = clock()
        self.answered += 1
        if self.one and self.began >= self.begins:
            self.taken.append(now - self.began)
        if now >= self.begins and not self.first[0]:
            self.first = now, self.answered
        if now < self.ends:
            self.ask()
            return
        self.left -= 1
        if not self.left:
            self.done.set()

    def measure(self, command: dict[str, Any]) -> dict[str, float]:
        self.one = command["do"] == "round_trip"
        self.left = 1 if self.one else command["in_flight"]
        self.taken, self.first, self.answered = [], (0.0, 0), 0
        self.begins = clock() + command["seconds"] * WARM_UP
        self.ends = self.begins + command["seconds"]
        self.done.clear()
        in_flight = self.left
        for _ in range(in_flight):
            self.ask()
        self.done.wait(60)
        if self.one:
            return latency(self.taken)
        began, count = self.first
        return {"rate": (self.answered - count) / (clock() - began)}


def client(said: dict[str, Any]) -> None:
    asker = Asker(said)
    for command in commands_sync():
        answer(**asker.measure(command))
    asker.client.loop_stop()


def subscriber(said: dict[str, Any]) -> None:
    meter: Meter | None = None
    done = threading.Event()

    def heard(_: paho.Client, __: Any, message: paho.MQTTMessage) -> None:
        if meter and not done.is_set() and meter.seen(unpack(message.payload)["number"]):
            done.set()

    client = connected(said, "bench/events", heard)
    for command in commands_sync():
        done.clear()
        meter = Meter(Shared(said["shared"]), command["seconds"])
        done.wait(60)
        answer(**meter.found)
    client.loop_stop()


def publisher(said: dict[str, Any]) -> None:
    client = connected(said)
    for _ in commands_sync():
        shared = Shared(said["shared"])
        sent = 0
        while not shared.stopped:
            for number in range(sent + 1, sent + BURST + 1):
                client.publish("bench/events", pack({"number": number, "text": TEXT}))
            sent += BURST
            shared.room_sync(sent)
        answer(published=sent)
    client.loop_stop()


if __name__ == "__main__":
    run({"service": service, "client": client, "subscriber": subscriber, "publisher": publisher})
