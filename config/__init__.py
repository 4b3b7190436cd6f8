"""Files that people write: YAML with positions, the node's settings, their JSON Schema.

Knows nothing of what the settings are used for. `document` reads any YAML file into any pydantic model and says everything
that is wrong with it at once; `node` is the model of a node's YAML; `units` has durations and sizes.
Odd: importing this package does not import pydantic or PyYAML; calling a function here does, because `covey --help` must
start fast. Import `document`, `node` and `units` themselves only where a file is about to be read.
"""

from __future__ import annotations

from .findings import Finding, render_all

__all__ = ["Finding", "render_all"]
