"""The systems that bench/bus.py compares: how each is started, and one run of each row on it.

Everything is a child process that is ended by its own id. A system is started anew for each run, so that none computes
while another is measured; servers listen on loopback only and keep nothing on disk.
"""

from __future__ import annotations

import importlib.util
import json
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bus_common import Shared
from covey.bus.security import Keys

HERE = Path(__file__).parent
COMPARED = ("round_trip", "pipelined", "events")
"""Rows that compare systems."""

LIMIT = 60.0
"""Seconds within which a party must answer."""


class Failed(Exception):
    """A party ended or said nothing; the text has what it wrote."""


class Party:
    """One child process that speaks the lines of bus_common.py."""

    def __init__(self, script: str, role: str, said: dict[str, Any]) -> None:
        self.role = f"{script} {role}"
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / script), role, json.dumps(said)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def ready(self) -> Party:
        """Wait until it says so."""
        self.hear()
        return self

    def say(self, **command: Any) -> None:
        """Give a command."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def hear(self, limit: float = LIMIT) -> dict[str, Any]:
        """Return its next line; raises Failed when none comes."""
        assert self._process.stdout
        readable, _, _ = select.select([self._process.stdout], [], [], limit)
        line = self._process.stdout.readline() if readable else ""
        if not line:
            raise Failed(f"{self.role} {'ended' if readable else 'did not answer'}")
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, **command: Any) -> dict[str, Any]:
        """Give a command and return the answer."""
        self.say(**command)
        return self.hear()

    def pause(self) -> None:
        """Stop it where it is."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def end(self, kill: bool = False) -> None:
        """End it: in order if it lets us, else by force."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        if kill:
            self._process.kill()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def free_port() -> int:
    """Return a loopback port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Started(NamedTuple):
    """A system that runs: the script of its parties and what they must know, by role."""

    script: str
    said: Callable[[str], dict[str, Any]]
    servers: list[Party]
    forced: frozenset[str] = frozenset()
    """Roles that do not listen to their input and are ended by force."""


def covey(stack: ExitStack, folder: Path, uvloop: bool) -> Started:
    """One node: a broker, and parties over ipc."""
    said = {"state": str(folder), "shared": str(folder / "shared"), "uvloop": uvloop}
    broker = started(stack, "bus_covey.py", "broker", said)
    return Started("bus_covey.py", lambda role: said, [broker])


def covey_two(stack: ExitStack, folder: Path, uvloop: bool, curve: bool = False) -> Started:
    """Two nodes on loopback addresses: client and subscriber at one, service and publisher at the other."""
    port = free_port()
    peers = {1: f"127.1.0.1:{port}", 2: f"127.1.0.2:{port}"}
    shared = {"shared": str(folder / "shared"), "uvloop": uvloop}
    pairs = {number: Keys.make() for number in peers} if curve else {}
    keys = {number: (pair.public, pair.secret) for number, pair in pairs.items()}
    servers = [
        started(
            stack,
            "bus_covey.py",
            "broker",
            {**shared, "state": f"{folder}/{number}", "number": number, "peers": peers, "keys": keys},
        )
        for number in peers
    ]

    def said(role: str) -> dict[str, Any]:
        if role in ("client", "subscriber"):
            return {**shared, "state": f"{folder}/1", "node": 2}
        return {**shared, "state": f"{folder}/2"}

    return Started("bus_covey.py", said, servers)


def covey_curve(stack: ExitStack, folder: Path, uvloop: bool) -> Started:
    """The same two nodes, their connection encrypted."""
    return covey_two(stack, folder, uvloop, curve=True)


def limit(stack: ExitStack, folder: Path, uvloop: bool) -> Started:
    """libzmq's C loops; their processes know no orderly end."""
    said = {"folder": str(folder), "shared": str(folder / "shared")}
    servers = [started(stack, "bus_limit.py", role, said, kill=True) for role in ("queue", "proxy")]
    return Started("bus_limit.py", lambda role: said, servers, frozenset({"service"}))


def bare(stack: ExitStack, folder: Path, uvloop: bool) -> Started:
    """Covey's shape with everything left out."""
    said = {"endpoint": f"ipc://{folder}/bare", "uvloop": uvloop}
    return Started("bus_bare.py", lambda role: said, [started(stack, "bus_bare.py", "broker", said)])


def nats(stack: ExitStack, folder: Path, uvloop: bool) -> Started:
    port = free_port()
    daemon(stack, port, "nats-server", "-a", "127.0.0.1", "-p", str(port))
    said = {"server": f"nats://127.0.0.1:{port}", "shared": str(folder / "shared"), "uvloop": uvloop}
    return Started("bus_nats.py", lambda role: said, [])


def redis(stack: ExitStack, folder: Path, uvloop: bool) -> Started:
    port = free_port()
    daemon(stack, port, "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
    said = {"server": f"redis://127.0.0.1:{port}", "shared": str(folder / "shared"), "uvloop": uvloop}
    return Started("bus_redis.py", lambda role: said, [])


def mosquitto(stack: ExitStack, folder: Path, uvloop: bool) -> Started:
    port = free_port()
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\n"
        "max_queued_messages 0\nmax_queued_bytes 0\nmax_inflight_messages 0\n"
    )
    daemon(stack, port, "mosquitto", "-c", str(config))
    said = {"port": port, "shared": str(folder / "shared")}
    return Started("bus_mqtt.py", lambda role: said, [])


class System(NamedTuple):
    """What is compared."""

    words: str
    start: Callable[[ExitStack, Path, bool], Started]
    missing: Callable[[], str]
    """Why it cannot be measured here; empty: it can."""
    rows: tuple[str, ...] = COMPARED


def _needs(program: str, package: str) -> Callable[[], str]:
    def missing() -> str:
        if not found(program):
            return f"{program} is not installed"
        if importlib.util.find_spec(package) is None:
            return f"the Python package {package} is not installed (extra `bench`)"
        return ""

    return missing


def _needs_events_of_nodes() -> str:
    return ""


SYSTEMS = {
    "covey": System("covey, one node", covey, lambda: ""),
    "covey-2": System("covey, two nodes", covey_two, _needs_events_of_nodes),
    "covey-2-curve": System("covey, two nodes, CURVE", covey_curve, lambda: ""),
    "limit": System("libzmq in C", limit, lambda: ""),
    "bare": System("bare Python", bare, lambda: "", ("round_trip",)),
    "nats": System("NATS, nats-py", nats, _needs("nats-server", "nats")),
    "redis": System("Redis, redis-py", redis, _needs("redis-server", "redis")),
    "mosquitto": System("Mosquitto, paho", mosquitto, _needs("mosquitto", "paho")),
}


def found(program: str) -> str | None:
    """Return where a server is; distributions put them where only root looks."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin:/usr/local/sbin")


def started(stack: ExitStack, script: str, role: str, said: dict[str, Any], kill: bool = False) -> Party:
    """Start a party, wait until it is ready, and end it when the stack ends."""
    party = Party(script, role, said)
    stack.callback(party.end, kill)
    return party.ready()


def daemon(stack: ExitStack, port: int, program: str, *arguments: str) -> int:
    """Start a server, wait until it listens, and end it when the stack ends; return its process id."""
    path = found(program)
    assert path
    process = subprocess.Popen([path, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def end() -> None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(end)
    given_up = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process.pid
        except OSError:
            if process.poll() is not None or time.monotonic() > given_up:
                raise Failed(f"{program} does not listen") from None
            time.sleep(0.01)


@contextmanager
def running(name: str, folder: Path, uvloop: bool) -> Iterator[tuple[ExitStack, Started]]:
    """Run a system in a fresh folder."""
    folder.mkdir(parents=True)
    with ExitStack() as stack:
        yield stack, SYSTEMS[name].start(stack, folder, uvloop)
    shutil.rmtree(folder)


def requests(system: Started, rows: list[str], seconds: float, in_flight: int) -> dict[str, dict[str, float]]:
    """One run of the rows that ask."""
    with ExitStack() as stack:
        started(stack, system.script, "service", system.said("service"), kill="service" in system.forced)
        client = started(stack, system.script, "client", system.said("client"))
        return {row: client.ask(do=row, seconds=seconds, in_flight=in_flight) for row in rows}


def events(system: Started, seconds: float) -> dict[str, float]:
    """One run of the row of events."""
    with ExitStack() as stack:
        Shared(system.said("subscriber")["shared"])
        subscriber = started(stack, system.script, "subscriber", system.said("subscriber"))
        publisher = started(stack, system.script, "publisher", system.said("publisher"))
        subscriber.say(seconds=seconds)
        publisher.say()
        result = subscriber.hear()
        publisher.hear()
        return result
