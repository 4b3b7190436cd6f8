"""The controller of classes made from OCF resource agents, which run unchanged from the system's folder.

Each agent that the node's YAML names is asked for its `meta-data`, which becomes a class (`metadata.py`); each entry is
one resource. Its `monitor` is run for every reading, the first of them being the probe: 0 is running, 8 promoted, 7
stopped, anything else failed (OCF resource agent API). Odd: a reading that meets an action under way asks for a retry,
because what an agent says of itself in the middle of its start means nothing. Without agents it has no class and
imports nothing.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field

from ...config.findings import quoted
from ...config.node import Settings, as_written
from ...config.values import PlacedPath
from ...config.wording import nearest, refusal
from ...errors import PluginError
from ..contract import Controller, Failed, Found, Resource, Retry

if TYPE_CHECKING:
    from ..commands import Done
    from .metadata import Agent

STATES = {0: "running", 7: "stopped", 8: "promoted"}
"""What the exit codes of `monitor` mean; every other one is `failed`."""

QUICK = 4.0
"""Seconds for `meta-data` and for the monitor of a reading, which counts as failed after 5."""

REPLY = 0.2
"""Seconds before an action's deadline at which the agent is killed, so that the reason still arrives."""

BUSY = 5.0
"""Seconds that an action waits for another one of the same resource."""

_AGENT = re.compile(r"ocf:([A-Za-z0-9][A-Za-z0-9_.-]*):([A-Za-z0-9][A-Za-z0-9_.-]*)")
_EXIT_REASON = "ocf-exit-reason:"


def _agent(written: str) -> str:
    if not _AGENT.fullmatch(written):
        raise refusal(
            "bad_value", f"{quoted(written)} names no agent", "write ocf:PROVIDER:TYPE, as ocf:heartbeat:Dummy"
        )
    return written


class AgentOptions(Settings):
    """One resource: its agent and the agent's parameters."""

    agent: Annotated[str, AfterValidator(_agent)] = Field(
        description="ocf:PROVIDER:TYPE, the program TYPE in resource.d/PROVIDER.", examples=["ocf:heartbeat:Dummy"]
    )
    parameters: dict[str, str | int | float | bool] = Field(
        default={}, description="The agent's parameters by name; `TYPE meta-data` lists them. Default: the agent's own."
    )


class OcfOptions(Settings):
    """Which agents run here."""

    root: PlacedPath = Field(
        default=as_written("/usr/lib/ocf"), description="OCF_ROOT, the folder of resource.d. Default /usr/lib/ocf."
    )
    agents: dict[Annotated[str, Field(min_length=1, max_length=64)], AgentOptions] = Field(
        default={}, description="By name of the resource: its agent and parameters. Default: none."
    )


class Ocf(Controller):
    """OCF resource agents as resources."""

    options: OcfOptions

    def __init__(self) -> None:
        self._agents: dict[str, Agent] = {}
        """By ocf:PROVIDER:TYPE."""
        self._busy = {name: threading.Lock() for name in self.options.agents}

    def describe(self) -> Mapping[str, Any]:
        """A class for each agent. Raises PluginError with all that is wrong with the agents and their parameters."""
        wrong = []
        for agent in sorted({one.agent for one in self.options.agents.values()}):
            try:
                self._agents[agent] = self._ask(agent)
            except (Failed, ValueError) as error:
                wrong.append(f"{agent}: {error}")
        classes: dict[str, str] = {}
        for agent, one in self._agents.items():
            if classes.setdefault(one.class_name, agent) != agent:
                wrong.append(f"{agent} and {classes[one.class_name]} would both be the class {one.class_name}")
        wrong += [f"{name}: {what}" for name, one in self.options.agents.items() for what in self._misfits(one)]
        if wrong:
            raise PluginError("; ".join(wrong), "correct `controllers: {ocf: {options: …}}` in the node's YAML")
        return {one.class_name: one.described() for one in self._agents.values()}

    def discover(self) -> Iterator[Found]:
        """One resource for each entry of `agents`."""
        if not self.options.agents:
            return
        from .metadata import typed

        for name, one in self.options.agents.items():
            agent = self._agents[one.agent]
            values = {
                parameter.attribute: typed(one.parameters.get(parameter.name, parameter.default), parameter.type)
                for parameter in agent.parameters.values()
            }
            yield Found(agent.class_name, key={"Name": name}, **values)

    def read(self, resource: Resource) -> dict[str, Any]:
        """What the agent's monitor says."""
        with self._alone(resource, 0.0):
            return self._verdict(self._run(resource, "monitor", QUICK))

    def run(self, resource: Resource, action: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Have the agent do something. Raises Failed with its reason when it could not."""
        from .metadata import ACTIONS

        name = ACTIONS[action]
        deadline = self._agents[self.options.agents[resource.key["Name"]].agent].deadlines[name]
        with self._alone(resource, min(BUSY, deadline / 2)):
            done = self._run(resource, name, max(deadline - REPLY, deadline / 2))
        if action == "Monitor":
            verdict = self._verdict(done)
            return {"State": verdict["State"], "ExitCode": verdict["ExitCode"]}
        if done.code != 0:
            raise Failed(f"{action} of {resource.key['Name']}: {_reason(done)}")
        return {}

    # --- inside ---------------------------------------------------------------------------------------------

    def _program(self, agent: str) -> Path:
        _, provider, kind = agent.split(":")
        return self.options.root / "resource.d" / provider / kind

    def _ask(self, agent: str) -> Agent:
        from .. import commands
        from .metadata import read_metadata

        program = self._program(agent)
        if not program.is_file():
            there = [f"ocf:{one.parent.name}:{one.name}" for one in program.parent.parent.glob("*/*")]
            near = nearest(agent, there)
            meant = f"did you mean {near}?" if near else "is its package (resource-agents) installed?"
            raise Failed(f"there is no {program}", meant)
        env = commands.environment(self.node) | self._environment(agent, "meta-data", "meta-data", QUICK)
        done = commands.run([str(program), "meta-data"], env=env, timeout=QUICK)
        if done.code != 0:
            raise Failed(f"meta-data: {_reason(done)}")
        _, provider, kind = agent.split(":")
        return read_metadata(provider, kind, done.output)

    def _misfits(self, one: AgentOptions) -> Iterator[str]:
        if one.agent not in self._agents:
            return
        known = self._agents[one.agent].parameters
        for name in one.parameters:
            if name not in known:
                near = nearest(name, known)
                yield f"{one.agent} has no parameter {name!r}" + (f" (did you mean {near!r}?)" if near else "")
        for name, parameter in known.items():
            if parameter.required and parameter.default is None and name not in one.parameters:
                yield f"{one.agent} needs the parameter {name!r}"

    def _environment(self, agent: str, instance: str, action: str, timeout: float) -> dict[str, str]:
        _, provider, kind = agent.split(":")
        return {
            "OCF_ROOT": str(self.options.root),
            "OCF_RA_VERSION_MAJOR": "1",
            "OCF_RA_VERSION_MINOR": "0",
            "OCF_RESOURCE_PROVIDER": provider,
            "OCF_RESOURCE_TYPE": kind,
            "OCF_RESOURCE_INSTANCE": instance,
            "OCF_RESKEY_crm_feature_set": "3.0.1",  # agents that ask want to know of one at least
            "OCF_RESKEY_CRM_meta_timeout": str(round(timeout * 1000)),
            "OCF_RESKEY_CRM_meta_interval": "0",
            **({"OCF_CHECK_LEVEL": "0"} if action == "monitor" else {}),
        }

    def _run(self, resource: Resource, action: str, timeout: float) -> Done:
        from .. import commands

        name = resource.key["Name"]
        one = self.options.agents[name]
        given = {f"OCF_RESKEY_{each}": commands.as_text(value) for each, value in one.parameters.items()}
        env = commands.environment(self.node, resource) | self._environment(one.agent, name, action, timeout) | given
        return commands.run([str(self._program(one.agent)), action], env=env, timeout=timeout)

    def _verdict(self, done: Done) -> dict[str, Any]:
        state = STATES.get(done.code, "failed")
        return {"State": state, "ExitCode": done.code, "Reason": _reason(done) if state == "failed" else None}

    @contextmanager
    def _alone(self, resource: Resource, patience: float) -> Iterator[None]:
        """Hold the resource: nothing else is asked of its agent meanwhile. Raises Retry when somebody else has it."""
        lock = self._busy[resource.key["Name"]]
        if not lock.acquire(timeout=patience):
            raise Retry(f"an action of {resource.key['Name']} is under way")
        try:
            yield
        finally:
            lock.release()


def _reason(done: Done) -> str:
    """What the agent gives as its reason, else the first line of its errors."""
    for line in done.errors.splitlines():
        if _EXIT_REASON in line:
            return f"exit code {done.code}: {line.partition(_EXIT_REASON)[2].strip()}"
    return done.reason
