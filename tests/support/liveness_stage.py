"""The stage for stories about liveness: a simulated cluster, ordered about in words.

    cluster N [servers A B C]     boot N nodes (and say how that went)
    run SECONDS                   let time pass
    kill N | power N | start N | pause N | resume N | leave N
    cut A B [one-way] | partition A B / C | mend
    views N                       the views that node N holds
    status N                      what node N thinks

What is to be seen: time since the last command, and each view once with all that hold it, what nodes are told of
themselves, who comes and goes from being quorate, and whom anybody suspects.
"""

from __future__ import annotations

from typing import Any

from covey.bus.machine import Effect, Notify, Publish, Send
from covey.components.liveness.messages import Alert, LeaveQ, Member, ViewChanged
from liveness_cluster import Cluster


class Stage:
    """Carries out the commands above."""

    def __init__(self) -> None:
        self.cluster: Cluster | None = None
        self.seen: list[tuple[float, str]] = []
        self.views: dict[str, list[int]] = {}
        self.quorate: dict[int, bool] = {}
        self.accused: dict[int, tuple[str, ...]] = {}
        self.since = 0.0

    @property
    def now(self) -> float:
        assert self.cluster is not None, "begin with: cluster N"
        return self.cluster.world.now

    def do(self, command: str) -> list[str]:
        verb, *words = command.split()
        if self.cluster is not None:
            self.since = self.now
        getattr(self, f"do_{verb}")(*words)
        seen, self.seen = self.seen, []
        self.views = {}
        return [f"{at - self.since:7.2f} s  {text}" if at >= 0 else text for at, text in seen]

    # --- commands ---------------------------------------------------------------------------------------------------

    def do_cluster(self, n: str, *words: str) -> None:
        moving = tuple(int(word) for word in words if word != "servers")
        self.cluster = Cluster(1, int(n), moving=moving)
        self.cluster.world.on_step.append(self.watch)
        self.cluster.settle()

    def do_run(self, seconds: str) -> None:
        self.world.run(float(seconds))

    def do_kill(self, n: str) -> None:
        self.world.crash(int(n))

    def do_power(self, n: str) -> None:
        self.world.crash(int(n), power=True)

    def do_start(self, n: str) -> None:
        self.world.start(int(n))

    def do_pause(self, n: str) -> None:
        self.world.pause(int(n))

    def do_resume(self, n: str) -> None:
        self.world.resume(int(n))

    def do_cut(self, a: str, b: str, how: str = "") -> None:
        self.world.cut(int(a), int(b), one_way=how == "one-way")

    def do_partition(self, *words: str) -> None:
        slash = words.index("/")
        self.world.partition([int(w) for w in words[:slash]], [int(w) for w in words[slash + 1 :]])

    def do_mend(self) -> None:
        self.world.heal()

    def do_leave(self, n: str) -> None:
        asked = self.world.ask(int(n), "liveness", LeaveQ())
        self.world.eventually(lambda: asked.done, 10)
        self.say(f"node {n} is answered: {asked.result}")

    def do_views(self, n: str) -> None:
        for view in self.machine(n).chain.views:
            self.seen.append((-1, f"{name(view.id)}: {members(view.members)}"))

    def do_status(self, n: str) -> None:
        machine = self.machine(n)
        quorate = "quorate" if machine.quorate else "frozen"
        epoch, node = machine.leader
        text = (
            f"{machine.phase}, {quorate}, view {name(machine.chain.id)}, epoch {epoch} led by {node or 'nobody known'}"
        )
        self.seen.append((-1, text))

    # --- what is to be seen -------------------------------------------------------------------------------------------

    @property
    def world(self) -> Any:
        assert self.cluster is not None
        return self.cluster.world

    def machine(self, n: str) -> Any:
        assert self.cluster is not None
        return self.cluster.machine(int(n))

    def say(self, text: str) -> None:
        self.seen.append((self.now, text))

    def watch(self, number: int, service: str, input: Any, effects: list[Effect]) -> None:
        if service != "liveness":
            return
        for effect in effects:
            if isinstance(effect, Notify) and effect.what != "joined":
                self.say(f"node {number} is told: {effect.what}")
            elif isinstance(effect, Publish) and isinstance(effect.body, ViewChanged):
                self.view_changed(number, effect.body)
            elif isinstance(effect, Send) and isinstance(effect.message, Alert):
                suspects = tuple(
                    f"{each.number}{each.network and f' on {each.network}'}" for each in effect.message.suspects
                )
                if self.accused.get(number, ()) != suspects:
                    self.accused[number] = suspects
                    whom = ", ".join(suspects) or "nobody any more"
                    self.say(f"node {number} accuses {whom}")

    def view_changed(self, number: int, body: ViewChanged) -> None:
        if self.quorate.get(number, True) != body.quorate:
            self.say(f"node {number} is {'quorate again' if body.quorate else 'frozen'}")
        self.quorate[number] = body.quorate
        self.holders(body, number)

    def holders(self, body: ViewChanged, number: int) -> None:
        """Say a view when the first node has it, and add the others to that line as they get it."""
        key = name(body.id)
        if not body.quorate or number in self.views.get(key, []):
            return
        holding = self.views.setdefault(key, [])
        holding.append(number)
        text = f"view {key}: {members(body.members)}"
        line = f"{text}, at {', '.join(map(str, sorted(holding)))}"
        for position, (at, old) in enumerate(self.seen):
            if old.startswith(f"{text}, at "):
                self.seen[position] = (at, line)
                return
        self.say(line)


def name(id: tuple[int, int]) -> str:
    return f"{id[0]}.{id[1]}"


def members(found: tuple[Member, ...]) -> str:
    """Write `1 2 (3)`: brackets for one that is not online yet, its life after a dash if it is not the first."""
    words = []
    for member in found:
        life = member.boot_id.rpartition(".")[2]
        word = f"{member.number}" if life == "1" else f"{member.number}-{life}"
        words.append(word if member.state == "online" else f"({word})")
    return " ".join(words) or "nobody"
