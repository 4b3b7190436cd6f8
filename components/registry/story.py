"""The newest inputs of a machine, for the text of an error. Pure; what is told is made when it is asked for."""

from __future__ import annotations

from collections import deque
from typing import Any

from .states import State

KEPT = 20


class Story:
    """When each input came, in which state, and of what kind it was."""

    def __init__(self) -> None:
        self._inputs: deque[tuple[float, State, type]] = deque(maxlen=KEPT)

    def note(self, now: float, state: State, input: Any) -> None:
        """An input came."""
        self._inputs.append((now, state, type(input)))

    def __str__(self) -> str:
        return "\n  ".join(f"{now:.6f} {state.value}: {kind.__name__}" for now, state, kind in self._inputs)
