"""Which controllers covey ships, and which classes they have, read from their description files alone.

At step 19 no controller runs yet, and no line of one may be imported here; what other packages bring is told to the
peers when their controllers speak. Blocks on files.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ...controllers.catalog import Catalog, Versions
from ...controllers.contract import GROUP
from ...controllers.description import description_files, description_of_ours
from ...controllers.options import has_work
from ...errors import CoveyError
from ...plugins.candidates import Candidate, find

log = logging.getLogger(__name__)


def shipped_versions(settings: Mapping[str, Any]) -> Versions:
    """Return the classes of the shipped controllers that the node's file does not disable."""
    catalog = Catalog()
    for candidate in _shipped(settings):
        for path in description_files(candidate.value.partition(":")[0]):
            try:
                catalog.add(candidate.name, description_of_ours(path).classes)
            except CoveyError as problem:
                log.warning("%s: %s", path, problem)
    return catalog.versions()


def shipped_names(settings: Mapping[str, Any]) -> list[str]:
    """Return the names of the shipped controllers that run on this node, in order."""
    return sorted(candidate.name for candidate in _shipped(settings))


def _shipped(settings: Mapping[str, Any]) -> list[Candidate]:
    options = settings.get("controllers") or {}
    return [
        candidate
        for candidate in find()
        if candidate.group == GROUP
        and candidate.shipped
        and not (candidate.problem or candidate.shadowed)
        and (options.get(candidate.name) or {}).get("enabled", True)
        and has_work(candidate, options)
    ]
