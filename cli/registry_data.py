"""The verbs of `covey registry` that read and write many values at once: txn, export, import.

What stands in the files is `registry_files.py`, which is imported when a file is read or written, since it is slow to.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ..errors import CoveyError
from .connection import Session, answer
from .options import settings
from .output import Block, Table, note, timestamp
from .verbs import alone

PAGE = 500
"""Keys in one answer to `ls`: of the largest values an answer holds fewer, and says that there are more."""

TRANSACTION_KEYS = 2_000
TRANSACTION_BYTES = 2 * 1024 * 1024
"""Of one transaction of an import: half of what the registry takes, so that one never stalls it for long."""

LONG = 300.0
"""Seconds that a command may take which moves all data, unless --timeout says otherwise."""

# --- one transaction -------------------------------------------------------------------------------------------------


@alone("txn", examples=["covey registry txn change.yaml", "covey registry txn - < change.json"])
@click.argument("file")
def txn(file: str) -> int:
    """Apply a transaction from a YAML or JSON FILE (-: standard input): all of it or nothing.

    The file holds `compare` (a list of {key, mod_revision}; 0 means that the key must not exist), `then` and
    `otherwise` (lists of {op: put or delete, key, value}). If every comparison holds, `then` is applied in one
    revision, else `otherwise` is, and the exit code is 3.
    """
    from .registry_files import read_transaction

    parts = read_transaction(file)

    def text(data: dict[str, Any]) -> list[Block]:
        if data["succeeded"]:
            return [f"revision {data['revision']}"]
        done = "`otherwise` was applied" if parts["otherwise"] else "nothing was written"
        return [f"a comparison does not hold: {done}, revision {data['revision']}"]

    return answer(
        lambda session: session.call("registry", "txn", **parts), text, code=lambda data: 0 if data["succeeded"] else 3
    )


# --- export and import -----------------------------------------------------------------------------------------------


@alone("export", examples=["covey registry export app.yaml", "covey registry export --prefix /app/site/ | less"])
@click.argument("file", required=False)
@click.option("--prefix", default="/app/", show_default=True, help="Only the keys that begin with it; / is all.")
def export(file: str | None, prefix: str) -> int:
    """Write the values below a prefix as YAML, to FILE or standard output; `import` takes it back.

    It is the state at one revision, whatever is written meanwhile. An existing FILE is not replaced. What lies
    outside /app/ belongs to components: it can be looked at, and not imported. For all of a registry see `backup`.
    """
    if file is not None:
        _check_absent(Path(file))

    async def ask(session: Session) -> Any:
        keys, revision = await read_all(session, prefix)
        here = session.bus.node
        about = {"cluster": here.cluster_name, "id": here.cluster_id, "revision": revision, "at": timestamp()}
        return {"file": file, "prefix": prefix, "exported": about, "keys": keys}

    def text(data: dict[str, Any]) -> Iterator[Block]:
        from .registry_files import dump

        written = dump(prefix, data["exported"], data["keys"])
        if file is None:
            sys.stdout.write(written)
            return
        _write_new(Path(file), written)
        yield f"{len(data['keys'])} keys at revision {data['exported']['revision']} in {file}"

    if file is None or settings().output in (None, "table"):
        return answer(ask, text, timeout=LONG)

    async def save(session: Session) -> Any:
        data = await ask(session)
        list(text(data))
        return {**data, "keys": len(data["keys"])}

    return answer(save, text, timeout=LONG)


async def read_all(session: Session, prefix: str) -> tuple[dict[str, Any], int]:
    """Return all values below a prefix at one revision, and that revision.

    They are read in parts, each as it is then; the changes since the first part, applied to all of them in order,
    give the state at the last.
    """
    found: dict[str, Any] = {}
    first = last = 0
    more, after = True, ""
    while more:
        page = await session.call("registry", "ls", prefix=prefix, after=after, limit=PAGE)
        found |= {item["key"]: item["value"] for item in page["items"]}
        last = page["revision"]
        first = first or last
        more = page.get("more", False)
        after = page["items"][-1]["key"] if page["items"] else ""
    while first < last:
        batch = await session.call("registry", "watch", prefix=prefix, from_revision=first + 1)
        for event in batch["events"]:
            if event["revision"] <= last:
                found.pop(event["key"], None)
                if event["type"] == "put":
                    found[event["key"]] = event["value"]
        first = max(batch["to"], first)
    return dict(sorted(found.items())), last


def _check_absent(path: Path) -> None:
    from ..components.registry.backup import check_absent

    check_absent(path)


def _write_new(path: Path, text: str) -> None:
    from ..components.registry.backup import write_new

    write_new(path, text.encode())


@alone("import", examples=["covey registry import app.yaml", "covey registry import app.yaml --dry-run"])
@click.argument("file")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
def import_(file: str, dry_run: bool) -> int:
    """Write the values of an exported FILE (-: standard input) into the registry.

    Keys that FILE does not name stay as they are. Nothing is written unless every key and value can be. What fits is
    one transaction, all or nothing; more than 2,000 changes or 2 MiB are several, and if one of them fails the same
    command goes on where it stopped, since what is as it should be already is not written again.
    """
    from .registry_files import read_export

    wanted = read_export(file)

    async def ask(session: Session) -> Any:
        there: dict[str, Any] = {}
        for prefix in _prefixes(wanted):
            there |= (await read_all(session, prefix))[0]
        changes = {key: value for key, value in wanted.items() if key not in there or not _same(value, there[key])}
        data: dict[str, Any] = {
            "file": file,
            "dry_run": dry_run,
            "created": [key for key in changes if key not in there],
            "changed": [key for key in changes if key in there],
            "unchanged": len(wanted) - len(changes),
            "transactions": 0,
            "revision": None,
        }
        if not dry_run:
            await _write_all(session, changes, data)
        return data

    def text(data: dict[str, Any]) -> list[Block]:
        rows = [("create", key) for key in data["created"]] + [("change", key) for key in data["changed"]]
        count = f"{len(data['created'])} created, {len(data['changed'])} changed, {data['unchanged']} as they were"
        if dry_run:
            return [Table(("would", "key"), rows, "nothing would change"), count.replace("created", "to create", 1)]
        at = f", revision {data['revision']}" if data["revision"] is not None else ""
        return [count + at]

    return answer(ask, text, timeout=LONG)


def _prefixes(keys: dict[str, Any]) -> list[str]:
    """Return the one prefix that all keys have, up to a slash; none when there are no keys."""
    if not keys:
        return []
    lowest, highest = min(keys), max(keys)  # what these two begin with, all begin with
    same = next((at for at, (a, b) in enumerate(zip(lowest, highest, strict=False)) if a != b), len(lowest))
    return [lowest[: lowest.rindex("/", 0, same) + 1]]


def _same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same; for Python True is 1 and 1 is 1.0."""
    import json

    return json.dumps(one) == json.dumps(other)


async def _write_all(session: Session, changes: dict[str, Any], data: dict[str, Any]) -> None:
    from ..components.registry.keys import pack_value

    part: list[dict[str, Any]] = []
    size = done = 0

    async def send() -> None:
        nonlocal part, size, done
        if not part:
            return
        try:
            told = await session.call("registry", "txn", then=part)
        except CoveyError as problem:
            if done:
                note(f"{done} of {len(changes)} changes were written before this:")
            raise problem
        done += len(part)
        data["transactions"] += 1
        data["revision"] = told["revision"]
        if done < len(changes) and sys.stderr.isatty():
            note(f"… {done} of {len(changes)}")
        part, size = [], 0

    for key, value in changes.items():
        weight = len(key.encode()) + len(pack_value(key, value))
        if part and (len(part) == TRANSACTION_KEYS or size + weight > TRANSACTION_BYTES):
            await send()
        part.append({"op": "put", "key": key, "value": value})
        size += weight
    await send()


VERBS = [txn, export, import_]
