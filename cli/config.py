"""`covey config`: check and show a node's YAML file, by the very load that `covey node start` does.

`load_or_fail` is that one load. Which controllers are installed is read from the packages' entry points, and none is
imported for it. Identity sources are known only when their packages are asked, here as in the daemon: the plugins of
group `covey` are loaded for it, each apart from the others.
"""

from __future__ import annotations

from typing import Any

import click

from .connection import offline
from .output import Block, Fields, note
from .unbuilt import unbuilt_option
from .verbs import Noun

command = Noun(
    "config",
    help="A node's YAML file. Every mistake is reported at once, with line and column, what is allowed and what to "
    "write instead. Nothing here needs a daemon.",
)

_file = click.argument("file", type=click.Path(dir_okay=False))


def installed() -> dict[str, Any]:
    """Return what `covey.config` cannot know: what is installed, what a good key file is, what options there are."""
    from ..bus.security import key_file_problem
    from ..components.dcm.sources import installed_sources
    from ..controllers.options import known_options
    from ..plugins.manager import PluginManager

    plugins = PluginManager()
    controllers = sorted({one.name for one in plugins.candidates("covey.controllers")})
    sources = sorted(installed_sources(plugins))
    for one in plugins.status("covey"):
        if one.state == "failed":
            note(f"the plugin {one.name} of {one.package} is not used: {one.reason}")
    return {
        "controllers": controllers,
        "identity_sources": sources,
        "check_key": key_file_problem,
        "options_of": known_options(plugins),
    }


def load_or_fail(file: str) -> Any:
    """Return the settings in a node's YAML; raises InvalidFile with all findings. Warnings go to standard error."""
    from ..config import check_node, load_node, render_all

    names = installed()
    settings = load_node(file, **names)
    warnings = check_node(file, **names)
    if warnings:
        note(render_all(warnings))
    return settings


@command.verb("check", examples=["covey config check n1.yaml", "covey config check n1.yaml -o json"])
@_file
@unbuilt_option("--deep", is_flag=True, spec="14.1", summary="Check files, ports and peers too.")
@unbuilt_option("--fix", is_flag=True, spec="14.1", summary="Repair what has only one repair.")
def check(file: str) -> int:
    """Check a node's YAML file without starting anything.

    It is the code that `covey node start` runs, so a file that passes here does not fail there for its content. The key
    file is looked at, too: that it is there, whole, and nobody else's to read. Each finding has FILE:LINE:COLUMN, a
    code (`covey explain CODE`), the line, what is allowed and a suggestion. The files that options of the controller
    `exec` name are checked, too: a mistake there fails that controller alone. Exit code 10 when there is an error;
    warnings alone give 0.
    """
    from ..config import check_node, render_all

    names = installed()
    findings = check_node(file, **names)
    if not any(found.severity == "error" for found in findings):
        findings += _in_named_files(file, names)
    failed = any(found.severity == "error" for found in findings)

    def text(_: Any) -> list[Block]:
        return [render_all(findings)] if findings else [f"{file}: ok"]

    return offline([found.as_dict() for found in findings], text, code=10 if failed else 0)


def _in_named_files(file: str, names: dict[str, Any]) -> list[Any]:
    from ..config import load_node
    from ..controllers.options import findings_in_files

    config = load_node(file, **names)
    found = []
    for name, settings in config.controllers.items():
        model = names["options_of"](name) if settings.options else None
        found += findings_in_files(model, settings.options, config.folder) if model is not None else []
    return found


@command.verb("show", examples=["covey config show n1.yaml -o yaml"])
@_file
@unbuilt_option("--origin", is_flag=True, spec="14.1", summary="Show for each value where it comes from.")
def show(file: str) -> int:
    """Print the settings that a file comes to: variables filled in, defaults added, paths made whole.

    A file with an error is not shown (exit code 10).
    """
    data = load_or_fail(file).model_dump(mode="json")
    return offline(data, lambda found: [Fields(list(_flat("", found)))])


def _flat(path: str, value: Any) -> Any:
    if isinstance(value, dict) and value:
        for name, found in value.items():
            yield from _flat(f"{path}.{name}" if path else name, found)
    else:
        yield path, value


@command.verb("schema", examples=["covey config schema > covey-node.schema.json"])
def schema() -> int:
    """Print the JSON Schema of a node's YAML, with the installed controllers' names, for editors.

    With the line `# yaml-language-server: $schema=covey-node.schema.json` at the top of the YAML, an editor completes
    names and marks mistakes. The schema itself is printed, unless -o json asks for the usual envelope around it.
    """
    from ..config import node_schema
    from .output import to_json

    names = {name: known for name, known in installed().items() if name != "check_key"}
    return offline(node_schema(**names), lambda found: [to_json(found, indent=2)])
