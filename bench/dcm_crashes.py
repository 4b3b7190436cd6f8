"""Kill real daemons at every numbered step of define, join, move, undefine, modify and of a replaced identity.

Four nodes on this machine: n1 founds A and defines the others, n2 is what it all happens to, n3 looks on, n4 founds B,
to which n2 is defined, too. The daemon that stands at the step ends as by SIGKILL (`COVEY_CRASH_AT`), is started again,
and then all must be as if it had been done or never asked for, everywhere: the registry, the node's own files, what the
others see. `--only d8,u3` takes some of the steps.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from covey.components.dcm.crash import STEPS
from covey.errors import CoveyError
from covey.testing import Cluster, Node

NEW_NODE = ("d3", "d12", "u4", "u5")
ONLOOKER = ("c4", "j7")
DECIDED = ("d9", "d10", "d11", "d13", "d14")
"""Steps of a define by which the registry has the entry, so that it goes on without its member."""

RENAMED = ("c3", "c4", "j7")
WAY = 40.0
"""Seconds for what a crash left to be sorted out."""


def made(isolation: str, moves: bool) -> Cluster:
    """Start the nodes; found the clusters. n2 has its id from a file, as from a card."""
    lab = Cluster(4 if moves else 3, isolation=isolation)
    try:
        card(lab[2], "first")
        text = lab[2].file.read_text().replace("identity: generated", f"identity: {{file: {lab[2].name}.card}}")
        lab[2].file.write_text(text)
        for node in lab:
            node.start()
        for node in lab:
            node.wait_up()
        for name, node in (("A", lab[1]), *([("B", lab[4])] if moves else [])):
            node.call("dcm", "cluster_define", name=name)
            node.wait_online()
        lab[1].define(lab[3], number=3)
        lab[3].wait_online()
    except BaseException:
        lab.show()
        lab.close()
        raise
    return lab


def card(node: Node, what: str) -> None:
    node.file.with_suffix(".card").write_text(f"card {what}\n")


class Trial:
    """One lab, and the steps tried in it, one after the other."""

    def __init__(self, lab: Cluster) -> None:
        self.lab = lab
        self.first, self.second, self.third = lab[1], lab[2], lab[3]
        self.cards = 0

    # --- how n2 stands ----------------------------------------------------------------------------------------

    def listed(self) -> bool:
        def told(nodes: Any) -> bool:
            return bool(nodes)

        self.first.wait_online(WAY)
        nodes = self.first.wait("the list of nodes", told, WAY, ask=("dcm", "node_ls"))
        return any(one["number"] == 2 for one in nodes)

    def folders(self) -> int:
        return len([path for path in self.second.state.iterdir() if (path / "configuration/node.json").exists()])

    def pending(self) -> bool:
        kept = json.loads((self.second.state / "dcm/configuration/clusters.json").read_text())
        return bool(kept["content"]["pending"])

    def defined(self, yes: bool, what: str = "A") -> None:
        """Bring n2 into A, or out of it."""
        there = [one["name"] for one in self.second.call("dcm", "cluster_ls")]
        if yes and what not in there:
            (self.first if what == "A" else self.lab[4]).define(self.second, number=2, name="n2")
        if not yes and what in there:
            self.first.call("dcm", "node_undefine", number=2, timeout=30.0)
            self.second.wait("n2 to be out", lambda said: said["node_state"] == "undefined", WAY)
        if yes:
            self.second.wait_online(WAY)

    # --- one step ---------------------------------------------------------------------------------------------

    def crash(self, node: Node, step: str, act: Callable[[], Any] | None = None) -> None:
        """Have a node's daemon end at this step of what is asked then (None: of its start), and start it again."""
        said = ""
        node.kill()
        node.environment["COVEY_CRASH_AT"] = step
        node.start()
        if act is not None:
            node.wait_up()
            if node is not self.second or step[0] in "mu":
                node.wait_online(WAY)
            try:
                act()
            except CoveyError as why:
                said = str(why)
        assert node.wait_end(WAY) == -signal.SIGKILL, f"{step}: it did not end there: {said}"
        del node.environment["COVEY_CRASH_AT"]
        node.start()
        node.wait_up()

    def run(self, step: str) -> str:
        """Try a step; return how it ended, in words. Raises AssertionError when something is between."""
        return {"d": self.define, "j": self.join, "r": self.replace, "u": self.undefine, "c": self.modify}.get(
            step[0], self.move
        )(step)

    def define(self, step: str) -> str:
        self.defined(False)
        self.second.call("dcm", "node_tokens_cancel")  # those of the steps before, of which it keeps few
        crashing = self.second if step in NEW_NODE else self.first
        self.crash(crashing, step, lambda: self.first.define(self.second, number=2, name="n2"))
        if self.pending():
            self.second.kill()  # else it would ask only when it has heard nothing for a while
            self.second.start()
        self.second.wait("no define to be pending", lambda _: not self.pending(), WAY)
        wanted = step in DECIDED
        if wanted:
            self.second.wait_online(WAY)
        assert (self.listed(), self.folders()) == (wanted, int(wanted)), f"{step}: {self.listed()}, {self.folders()}"
        return "all of it" if wanted else "nothing of it"

    def join(self, step: str) -> str:
        if step in ONLOOKER:
            return self.modify(step)
        self.defined(True)
        before = self.second.call("dcm", "local")["definition_id"]
        self.crash(self.second, step)
        self.second.wait_online(WAY)
        self.first.wait("n2 to be seen", lambda said: 2 in said["view"]["members"], WAY)
        assert self.second.call("dcm", "local")["definition_id"] == before
        return "online at the next start"

    def replace(self, step: str) -> str:
        self.defined(True)
        self.cards += 1
        card(self.second, f"number {self.cards}")
        self.crash(self.second, step)
        self.second.wait_online(WAY)
        new = f"card number {self.cards}"
        assert self.second.call("dcm", "local")["node_id"] == new
        for node in (self.first, self.second):
            node.wait("the new id", lambda said: said["id"] == new, WAY, ask=("dcm", "node_show"), number=2)
        assert not list(self.second.state.glob("*/configuration/replacement.json"))
        return "completed at the next start"

    def undefine(self, step: str) -> str:
        self.defined(True)
        crashing = self.second if step in NEW_NODE else self.first
        self.crash(crashing, step, lambda: self.first.call("dcm", "node_undefine", number=2, timeout=30.0))
        self.first.wait_online(WAY)
        gone = step not in ("u1", "u2")
        assert self.listed() != gone, step
        if self.folders() and self.second.call("dcm", "cluster_status")["node_state"] == "offline":
            self.second.call("dcm", "node_online")
        state = "undefined" if gone else "online"
        self.second.wait(f"n2 to be {state}", lambda said: said["node_state"] == state, WAY)
        assert self.folders() == int(not gone), f"{step}: {self.folders()} folders"
        return "all of it" if gone else "nothing of it"

    def modify(self, step: str) -> str:
        self.defined(True)
        old = self.first.call("dcm", "node_show", number=2)["name"]
        new = "owl" if old != "owl" else "n2"
        crashing = self.third if step in ONLOOKER else self.first
        self.crash(crashing, step, lambda: self.first.call("dcm", "node_modify", number=2, name=new, timeout=30.0))
        wanted = new if step in RENAMED else old
        for node in (self.first, self.second, self.third):
            node.wait_online(WAY)
            node.wait(f"{wanted}", lambda said: said["name"] == wanted, WAY, ask=("dcm", "node_show"), number=2)
        if wanted != "n2":
            self.first.call("dcm", "node_modify", number=2, name="n2", timeout=30.0)
        return "all of it" if wanted == new else "nothing of it"

    def move(self, step: str) -> str:
        self.defined(True)
        self.defined(True, "B")
        at = self.second.wait_online(WAY)["name"]
        target = "AB".replace(at, "")
        self.crash(self.second, step, lambda: self.second.call("dcm", "node_move", to=target, timeout=60.0))
        came = place(self.second)
        assert came == (target if step != "m1" else at), f"{step}: in {came}"
        for name, node in (("A", self.first), ("B", self.lab[4])):
            inside = came == name
            node.wait("n2 to be in one", lambda said, inside=inside: (2 in said["view"]["members"]) == inside, WAY)
        if came == "B":
            self.second.call("dcm", "node_move", to="A", timeout=60.0)
        return f"in {'the target' if came == target else 'the old one'} alone"


def place(node: Node) -> str:
    """Wait until no move is under way; return the cluster in which the node is, by its pointers and its state."""
    node.wait("the move to be over", lambda said: said["state"] == "idle", WAY, ask=("dcm", "node_moving"))
    name = str(node.wait_online(WAY)["name"])
    pointed = {one["name"]: (one["current"], one["target"]) for one in node.call("dcm", "cluster_ls")}
    assert pointed.pop(name) == (True, True)
    assert set(pointed.values()) <= {(False, False)}
    return name


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Kill real daemons at every numbered step of the DCM's protocols.")
    parser.add_argument("--only", default="", metavar="STEPS", help="some of them, as d8,u3 (default: all)")
    parser.add_argument("--isolation", choices=["process", "inline"], default="inline")
    parser.add_argument("--json", action="store_true", help="one object; progress goes to standard error")
    said = parser.parse_args(arguments)
    steps = [step for step in said.only.split(",") if step] or list(STEPS)
    if unknown := sorted(set(steps) - set(STEPS)):
        parser.error(f"no such step: {', '.join(unknown)}; there are {', '.join(STEPS)}")

    found = []
    with closing(made(said.isolation, any(step[0] == "m" for step in steps))) as lab:
        trial = Trial(lab)
        for step in steps:
            began = time.monotonic()
            try:
                end = trial.run(step)
            except BaseException:
                lab.show()
                raise
            found.append({"step": step, "what": STEPS[step], "end": end, "s": round(time.monotonic() - began, 1)})
            line = f"{step:>4}  {end:<28} {found[-1]['s']:5.1f} s  {STEPS[step]}"
            print(line, file=sys.stderr if said.json else sys.stdout, flush=True)
        for node in lab:
            text = node.log.read_text() if node.log.exists() else ""
            assert "Traceback (most recent call last)" not in text, Path(node.log)
    if said.json:
        print(json.dumps({"schema": "covey/bench.dcm_crashes/1", "points": found}))


if __name__ == "__main__":
    main()
