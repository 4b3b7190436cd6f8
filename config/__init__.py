"""Files that people write: YAML with positions, the node's settings, their JSON Schema.

Knows nothing of what the settings are used for. `document` reads any YAML file into any pydantic model and says
everything that is wrong with it at once; `node` is the model of a node's YAML; `units` has durations and sizes.
Odd: importing this package imports neither pydantic nor PyYAML, because `covey --help` must start fast; the functions
here do when they are called. So import `document`, `node`, `values` and `units` only where a file is to be read.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from .findings import Finding, render_all
from .names import id_problem, name_problem

if TYPE_CHECKING:
    from .node import KeyCheck, NodeConfig, OptionsOf

__all__ = ["Finding", "check_node", "id_problem", "load_node", "name_problem", "node_schema", "render_all"]


def load_node(
    path: str | os.PathLike[str],
    *,
    controllers: Collection[str] | None = None,
    identity_sources: Collection[str] | None = None,
    check_key: KeyCheck | None = None,
    options_of: OptionsOf | None = None,
    env: Mapping[str, str] | None = None,
) -> NodeConfig:
    """Return the settings in a node's YAML; raise `InvalidFile` with all findings. See `node.load_node`."""
    from . import node

    return node.load_node(
        path,
        controllers=controllers,
        identity_sources=identity_sources,
        check_key=check_key,
        options_of=options_of,
        env=env,
    )


def check_node(
    path: str | os.PathLike[str],
    *,
    controllers: Collection[str] | None = None,
    identity_sources: Collection[str] | None = None,
    check_key: KeyCheck | None = None,
    options_of: OptionsOf | None = None,
    env: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Return what is wrong with a node's YAML, by position. See `node.check_node`."""
    from . import node

    return node.check_node(
        path,
        controllers=controllers,
        identity_sources=identity_sources,
        check_key=check_key,
        options_of=options_of,
        env=env,
    )


def node_schema(
    *,
    controllers: Collection[str] | None = None,
    identity_sources: Collection[str] | None = None,
    options_of: OptionsOf | None = None,
) -> dict[str, Any]:
    """Return the JSON Schema of a node's YAML. See `schema.node_schema`."""
    from . import schema

    return schema.node_schema(controllers=controllers, identity_sources=identity_sources, options_of=options_of)
