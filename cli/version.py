"""`covey version`: what to name in a report of a bug."""

from __future__ import annotations

from typing import Any

from .connection import offline
from .output import Block, Fields
from .verbs import alone

_LIBRARIES = ("pyzmq", "msgspec", "pydantic", "PyYAML", "pluggy", "lz4", "click", "rich", "psutil")


@alone("version", examples=["covey version -o json"])
def command() -> int:
    """Print the version of covey, of Python and of the libraries it runs on.

    Works without a daemon: it is the command's own installation that is named. Put the output into a bug report.
    """
    import platform
    from importlib import metadata

    data: dict[str, Any] = {
        "covey": metadata.version("covey"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libraries": {},
    }
    for name in _LIBRARIES:
        try:
            data["libraries"][name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            data["libraries"][name] = None
    try:
        import zmq

        data["libraries"]["libzmq"] = zmq.zmq_version()
    except ImportError:
        data["libraries"]["libzmq"] = None
    return offline(data, _text)


def _text(data: dict[str, Any]) -> list[Block]:
    own = [(name, data[name]) for name in ("covey", "python", "system")]
    return [Fields([*own, *data["libraries"].items()])]
