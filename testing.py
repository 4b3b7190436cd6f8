"""What authors of plugins test with: `check_controller`, and the pytest fixtures `node` and `cluster`.

`check_controller` runs a controller against its own description, without a node and without pytest; the checks are
those that a node makes, so what passes here is not refused there. The fixtures start real daemons as `covey node
start` does, each cluster with a folder, loopback addresses and a port of its own, so that tests can run side by side.
`pytest_plugins = ["covey.testing"]` in a conftest.py brings them in. The simulator of protocol machines and the judges
of histories live in `bus/` and are handed on from there when they are first asked for.

What is odd: daemons and commands are forked from one parent that has imported covey (`components/dcm/preloaded.py`),
because a suite starts hundreds. The kernel kills them when this process ends, so that an aborted run leaves nothing
behind. A cluster that ends makes sure that none of its processes is left.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .bus.client import Client, connect
from .bus.messages import Role
from .bus.security import make_keys
from .bus.service import Request
from .components.dcm.preloaded import Forked, Preloaded
from .controllers.binding import Bound, bind, described
from .controllers.caller import Caller
from .controllers.contract import Controller
from .controllers.options import make
from .controllers.served import ServedController
from .errors import CoveyError
from .plugins.blame import home_of

if TYPE_CHECKING:
    from .bus.linearizability import (
        NotLinearizable,
        Read,
        Register,
        Transaction,
        check_registers,
        check_transactions,
        check_watch,
    )
    from .bus.nemesis import Nemesis
    from .bus.simulation import Link, SimulationFailure, World

__all__ = [
    "Answer",
    "Cluster",
    "Link",
    "Nemesis",
    "Node",
    "NotLinearizable",
    "Read",
    "Register",
    "SimulationFailure",
    "Transaction",
    "World",
    "check_controller",
    "check_registers",
    "check_transactions",
    "check_watch",
    "running_cluster",
]

_LATER = {
    **dict.fromkeys(("Link", "SimulationFailure", "World"), "simulation"),
    "Nemesis": "nemesis",
    **dict.fromkeys(("NotLinearizable", "Read", "Register", "Transaction"), "linearizability"),
    **dict.fromkeys(("check_registers", "check_transactions", "check_watch"), "linearizability"),
}

PATIENCE = 60.0
"""Seconds to wait for what takes one on an idle machine: tests share theirs with others."""

_NODE = """\
node:
  name: {name}
  state_dir: ./{name}
  identity: generated
  adapters: [{adapters}]
  port: {port}
security: {security}
isolation: {isolation}
"""

MODE = "curve"
"""How the nodes of a cluster speak with each other, unless a test says it."""


def __getattr__(name: str) -> Any:
    """Hand on what a test of nodes does not need."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".bus.{_LATER[name]}", __package__), name)


# the process itself asks to die with its parent, then is what `covey …` is
_START = "import ctypes; ctypes.CDLL(None).prctl(1, 9); from covey.cli import main; main()"


@cache
def _preloaded() -> Preloaded:
    parent = Preloaded("covey.cli:main", "covey.cli.root", "covey.cli.node", "covey.cli.config", "covey.config.node")
    atexit.register(parent.close)
    return parent


@dataclass(frozen=True)
class Answer:
    """What a `covey` command answered."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The `data` of an answer that was asked for with `-o json`."""
        found = json.loads(self.out)
        if "error" in found:
            raise AssertionError(f"the command failed: {found['error']}")
        return found["data"]

    @property
    def error(self) -> dict[str, str]:
        """The `code`, `message` and `hint` of a failure, asked for with `-o json`."""
        found: dict[str, str] = json.loads(self.out)["error"]
        return found


def run_covey(words: Sequence[str], environment: Mapping[str, str], timeout: float = 90.0) -> Answer:
    """Run `covey WORDS…` as a person would, for `timeout` seconds at most; raises only when it shows a traceback."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        running = _preloaded().start(["covey", *words], environment, out, err)
        try:
            code = running.wait(timeout)
        finally:
            running.kill()
            running.wait()
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode())
    assert "Traceback (most recent call last)" not in "".join(said), "".join(said)
    return Answer(code, *said)


class Node:
    """One node: its files, its daemon, and ways to talk to it. Made by `Cluster`."""

    def __init__(
        self,
        number: int,
        folder: Path,
        adapters: list[str],
        port: int,
        isolation: str,
        environment: Mapping[str, str],
        mode: str = MODE,
        fresh: bool = False,
    ) -> None:
        self.number = number
        self.name = f"n{number}"
        self.adapters = adapters
        self.port = port
        self.state = folder / self.name
        self.file = folder / f"{self.name}.yaml"
        self.log = folder / f"{self.name}.log"
        self.address = f"{adapters[0].partition('/')[0]}:{port}"
        self.environment = {**os.environ, **environment, "COVEY_STATE": str(self.state)}
        self._fresh = fresh
        self._child: subprocess.Popen[bytes] | Forked | None = None
        self.mode = mode
        security = "{mode: open}"
        self.key = folder / f"{self.name}.key"
        if mode == "curve":
            make_keys(self.key)
            security = f"{{mode: curve, key: {{file: {self.name}.key}}}}"
        text = {"name": self.name, "adapters": ", ".join(adapters), "port": port, "isolation": isolation}
        self.file.write_text(_NODE.format(**text, security=security))

    # --- the daemon -----------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """The process id of the daemon (the parent of all its others), of the last one when none runs."""
        assert self._child is not None, f"{self.name} was never started"
        return self._child.pid

    @property
    def ended(self) -> int | None:
        """The daemon's exit code (negative: the signal that ended it), None while it runs."""
        assert self._child is not None, f"{self.name} was never started"
        return self._child.poll()

    def start(self) -> None:
        """Start the daemon; `wait` for what you need of it."""
        assert self._child is None or self.ended is not None, f"{self.name} runs"
        with self.log.open("ab") as log:
            self._child = self._run(["node", "start", str(self.file)], log)

    def _run(self, words: Sequence[str], output: IO[bytes]) -> subprocess.Popen[bytes] | Forked:
        if not self._fresh:
            return _preloaded().start(["covey", *words], self.environment, output, output)
        return subprocess.Popen(
            [sys.executable, "-P", "-c", _START, *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    def stop(self, seconds: float = 30.0) -> int:
        """End the daemon in order with SIGTERM; return its exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return self.wait_end(seconds)

    def wait_end(self, seconds: float = 30.0) -> int:
        """Wait until the daemon ends by itself, with all its processes; return its exit code."""
        assert self._child is not None, f"{self.name} was never started"
        try:
            code = self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} does not end within {seconds:g} s; {self.last_words()}") from None
        self._gone()
        return code

    def kill(self) -> None:
        """Kill the daemon as a crash of its machine would; all its processes must go with it."""
        assert self._child is not None, f"{self.name} was never started"
        self._child.kill()
        self._child.wait()
        self._gone()

    def processes(self) -> dict[int, str]:
        """Return the daemon's processes that are there, the daemon among them: `{pid: name}`."""
        return {pid: name for pid, name in _sessions(self.pid) if name}

    def _gone(self, seconds: float = 5.0) -> None:
        """Wait until no process of the daemon is left; those that stay are ended, and named in an AssertionError."""
        strays: dict[int, str] = {}
        until = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < until + seconds:
            if time.monotonic() > until:
                strays |= left
                for pid in left:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        assert not strays, f"{self.name} ended and left processes behind: {strays}"

    def last_words(self, lines: int = 30) -> str:
        """Return the end of the daemon's log, for messages."""
        found = self.log.read_text(errors="replace").splitlines()[-lines:] if self.log.exists() else []
        return f"the end of {self.log}:\n" + "\n".join(f"    {line}" for line in found)

    # --- talking to it --------------------------------------------------------------------------------------------

    def covey(self, *words: str, timeout: float = 90.0) -> Answer:
        """Run `covey WORDS…` through this node, as a person would; raises only when it shows a traceback."""
        return run_covey(words, self.environment, timeout)

    def connect(self) -> AbstractAsyncContextManager[Client]:
        """Connect to the node's bus: `async with node.connect() as bus`."""
        return connect(self.state)

    def call(self, service: str, verb: str, /, **arguments: Any) -> Any:
        """Call a verb of a service, over a connection of its own."""

        async def ask() -> Any:
            async with self.connect() as bus:
                return await bus.call(service, verb, **arguments)

        return asyncio.run(ask())

    def wait(
        self,
        what: str,
        holds: Callable[[Any], bool],
        seconds: float = PATIENCE,
        *,
        ask: tuple[str, str] = ("dcm", "cluster_status"),
        **arguments: Any,
    ) -> Any:
        """Ask a verb again and again until `holds(answer)`, and return that answer.

        Errors of the bus are waited out too. After `seconds`, or when the daemon has ended, it raises AssertionError
        with the last answer and the end of the daemon's log.
        """
        return asyncio.run(self._wait(what, holds, time.monotonic() + seconds, ask, arguments))

    async def _wait(
        self, what: str, holds: Callable[[Any], bool], until: float, ask: tuple[str, str], arguments: dict[str, Any]
    ) -> Any:
        seen: Any = "nothing"
        while True:
            try:
                async with self.connect() as bus:
                    while time.monotonic() < until:
                        seen = await bus.call(*ask, timeout=5.0, **arguments)
                        if holds(seen):
                            return seen
                        await asyncio.sleep(0.05)
            except CoveyError as problem:
                seen = f"{problem.code}: {problem}"
            if time.monotonic() > until or self.ended is not None:
                raise AssertionError(f"{self.name}: waited for {what}, last saw {seen}; {self.last_words()}")
            await asyncio.sleep(0.05)

    def prepared(self) -> dict[str, Any]:
        """Return the arguments of `dcm.node_define` for this node: its address and, in mode curve, a new join token."""
        token = self.call("dcm", "node_prepare")["token"] if self.mode == "curve" else None
        return {"address": self.address, "token": token}

    def joining(self) -> list[str]:
        """Return the same as words of `covey node define …`."""
        given = self.prepared()
        return [given["address"], *(["--token", given["token"]] if given["token"] else [])]

    def define(self, other: Node, **wanted: Any) -> Any:
        """Define another node to this one's cluster; return its definition."""
        return self.call("dcm", "node_define", timeout=30.0, **other.prepared(), **wanted)

    def wait_up(self) -> None:
        """Wait until the daemon answers on its bus."""
        self.wait("its daemon to answer", lambda _: True)

    def wait_online(self, seconds: float = PATIENCE) -> Any:
        """Wait until the node itself says that it is online; return its `cluster status`."""
        return self.wait("the node to be online", lambda status: status["node_state"] == "online", seconds)


class Cluster:
    """Nodes on this machine: iterate over them, or take one by its number. `close` ends and removes all of it.

    The first node founds the cluster as its registry server; with `servers` the next ones become servers, too. `fresh`:
    each daemon is a Python of its own from the beginning, as a person starts it, for who measures that.
    """

    def __init__(
        self,
        nodes: int,
        *,
        isolation: str = "process",
        environment: Mapping[str, str] | None = None,
        mode: str = MODE,
        servers: int = 1,
        fresh: bool = False,
    ) -> None:
        self.servers = servers
        self.folder = Path(tempfile.mkdtemp(prefix="cv", dir=_short_folder()))
        adapters, port = _place(nodes)
        self._nodes = [
            Node(number, self.folder, adapters[number - 1], port, isolation, environment or {}, mode, fresh)
            for number in range(1, nodes + 1)
        ]

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes)

    def __getitem__(self, number: int) -> Node:
        return self._nodes[number - 1]

    def up(self) -> None:
        """Start all, define the cluster lab on the first node and the others into it; wait until all are online.

        Then the registry servers are defined, and each waited for until it votes.
        """
        for node in self:
            node.start()
        for node in self:
            node.wait_up()
        first, *others = self
        first.call("dcm", "cluster_define", name="lab")
        first.wait_online()
        for node in others:
            first.define(node, name=node.name, number=node.number)
        self.wait_online()
        for number in range(2, self.servers + 1):
            first.wait(  # not while the one before, which is seen to vote already, is still being made a voter
                "another registry server to be taken",
                lambda _: True,
                ask=("dcm", "registry_define_server"),
                number=number,
            )
            self.wait_voting(number)

    def wait_voting(self, *numbers: int, ask: int = 1, seconds: float = PATIENCE) -> Any:
        """Wait until these nodes' registry servers vote, as the node `ask` sees it; return that `registry status`."""

        def voting(status: Any) -> bool:
            found = {one["number"] for one in status["servers"] if one["state"] in ("primary", "follower")}
            return set(numbers) <= found

        what = f"the registry servers {', '.join(map(str, numbers))} to vote"
        return self[ask].wait(what, voting, seconds, ask=("registry", "status"))

    def wait_online(self, seconds: float = PATIENCE) -> None:
        """Wait until every node sees all nodes online."""

        def all_online(status: Any) -> bool:
            return [one["state"] for one in status["nodes"]] == ["online"] * len(self._nodes)

        for node in self:
            node.wait("all nodes to be online", all_online, seconds)

    def show(self) -> None:
        """Print the ends of the daemons' logs: pytest shows them when the test failed."""
        for node in self:
            print(node.last_words(60))

    def close(self) -> None:
        """Kill what runs, make sure that nothing is left, remove the files."""
        problems = []
        for node in self:
            try:
                if node._child is not None:
                    node.kill()
            except AssertionError as problem:
                problems.append(str(problem))
        shutil.rmtree(self.folder)
        assert not problems, "\n".join(problems)


@contextmanager
def running_cluster(
    nodes: int = 1,
    *,
    isolation: str = "inline",
    environment: Mapping[str, str] | None = None,
    mode: str = MODE,
    servers: int = 1,
) -> Iterator[Cluster]:
    """Yield a cluster of that many nodes, all online; end it afterwards, and print what its daemons said last."""
    made = Cluster(nodes, isolation=isolation, environment=environment, mode=mode, servers=servers)
    with closing(made) as cluster:
        try:
            cluster.up()
            yield cluster
        finally:
            cluster.show()


def _short_folder() -> str:
    """Return where temporary folders go, unless a local socket in one would have too long a path."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) <= 60 else "/tmp"


def _place(nodes: int) -> tuple[list[list[str]], int]:
    """Choose two loopback networks of one's own and a port that is free on all their addresses (and the next one)."""
    chance = random.SystemRandom()
    for _ in range(100):
        first, second, port = chance.randint(3, 250), chance.randrange(0, 254, 2), chance.randrange(20000, 32000, 2)
        hosts = [[f"127.{first}.{second + network}.{number}" for network in (0, 1)] for number in range(1, nodes + 1)]
        if all(_is_free(host, each) for pair in hosts for host in pair for each in (port, port + 1)):
            return [[f"{host}/24" for host in pair] for pair in hosts], port
    raise AssertionError("no port is free on loopback addresses")


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _sessions(session: int) -> Iterator[tuple[int, str]]:
    """Yield `(pid, name)` of the live processes of a session: a daemon's children stay in it whoever adopts them."""
    for path in Path("/proc").iterdir():
        if not path.name.isdecimal():
            continue
        try:
            if os.getsid(int(path.name)) != session:
                continue
            text = (path / "stat").read_text()
        except OSError:
            continue  # it ended meanwhile
        name, _, rest = text.partition("(")[2].rpartition(")")
        if rest.split()[0] not in "ZX":
            yield int(path.name), name


if find_spec("pytest"):
    import pytest

    @pytest.fixture
    def node() -> Iterator[Node]:
        """A node that is online, alone in its cluster."""
        with running_cluster() as cluster:
            yield cluster[1]

    @pytest.fixture
    def cluster() -> Iterator[Callable[..., Cluster]]:
        """`cluster(3)` gives a cluster of three nodes that are online (arguments as of `running_cluster`)."""
        with ExitStack() as stack:
            yield lambda *args, **options: stack.enter_context(running_cluster(*args, **options))


def check_controller(
    controller: type[Controller], options: Mapping[str, Any] | None = None, folder: str | Path = ""
) -> list[dict[str, Any]]:
    """Discover and read everything, and hold it against the description, both ways.

    `options` are as in a YAML of a node, `folder` is where it would lie. Returns what was found as `{class, id, key,
    attributes}`, the dynamic attributes among them. Raises AssertionError with one line per finding: a description or
    class that does not fit, a resource or attribute that is not declared, a value of another type, an attribute that is
    declared without a default and never reported, a method that raises or hangs.
    """
    try:
        bound = bind("", controller)
    except CoveyError as error:
        raise AssertionError(str(error)) from error
    found, problems = asyncio.run(_run(bound, options or {}, folder))
    if problems:
        raise AssertionError("\n".join([f"{controller.__name__} does not keep its description:", *problems]))
    return found


async def _run(bound: Bound, options: Mapping[str, Any], folder: str | Path) -> tuple[list[dict[str, Any]], list[str]]:
    home = home_of(bound.controller.__module__)
    caller = Caller(bound.name, home)
    request = Request("test", 1, Role.COMPONENT)
    try:
        made = await caller.call(make, bound.controller, options, folder, deadline=10.0)
        if bound.describes:
            bound = described(bound, await caller.call(made.describe, deadline=10.0))
        served = ServedController(bound.name, lambda: 1, home=home, bound=bound, controller=made, caller=caller)
        answer = await served.discover(request)
        found, problems = answer["found"], _lines(answer["findings"])
        for one in found:
            description = bound.description.get(one["class"])
            if description is None or all(attribute.kind != "dynamic" for attribute in description.attributes):
                continue
            answer = await served.read(request, cls=one["class"], key=one["key"])
            one["attributes"] = one["attributes"] | answer["attributes"]
            problems += _lines(answer["findings"])
    except CoveyError as error:
        return [], [f"- {error.code}: {error}"]
    finally:
        caller.close()
    return found, problems + _never_reported(bound, found)


def _never_reported(bound: Bound, found: list[dict[str, Any]]) -> list[str]:
    problems = []
    for one in bound.classes:
        reported = [set(item["attributes"]) for item in found if item["class"] == one.name]
        if reported:
            declared = {attribute.name for attribute in one.attributes if not attribute.has_default}
            missing = sorted(declared - set(one.key) - set().union(*reported))
            problems += [f"- {one.name}.{name} is declared, and was never reported" for name in missing]
    return problems


def _lines(findings: list[dict[str, Any]]) -> list[str]:
    return [f"- {one['code']}: {one['message']}" + (f" ({one['hint']})" if one["hint"] else "") for one in findings]
