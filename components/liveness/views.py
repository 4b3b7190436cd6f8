"""The chain of views: how one is made from the one before, and how a node tells that it fits.

Knows no time and no network. The hash of a view covers the view and the hash before it, so two nodes whose
last views have the same hash have had the same history. A chain keeps its last links only; what it forgets
first is who left long ago, which matters to nobody but a message that was on its way for that many views.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import msgspec

from .messages import NO_VIEW, Member, Step, View, ViewId


def digest(view: View) -> str:
    """Return the hash that belongs to a view: of everything in it but the hash itself."""
    members = [(m.number, m.boot_id, m.state, m.name) for m in view.members]
    told = (view.id, view.previous, view.previous_hash, members, view.at)
    return hashlib.blake2b(msgspec.msgpack.encode(told), digest_size=16).hexdigest()


def make(previous: View | None, epoch: int, members: Iterable[Member], at: float = 0.0) -> View:
    """Make the view that follows `previous` (None: the first of all) under the leader of `epoch`."""
    before, number, told = (previous.id, previous.id[1], previous.hash) if previous else (NO_VIEW, 0, "")
    view = View((epoch, number + 1), before, told, tuple(sorted(members)), round(at, 3), "")
    return msgspec.structs.replace(view, hash=digest(view))


def difference(old: Sequence[Member], new: Sequence[Member]) -> tuple[tuple[Member, ...], tuple[Member, ...]]:
    """Return who joined and who left from one list to the next; by boot id, since that is what lives and dies."""
    before, after = {m.boot_id for m in old}, {m.boot_id for m in new}
    joined = tuple(m for m in new if m.boot_id not in before)
    return joined, tuple(m for m in old if m.boot_id not in after)


def step_to(view: View, before: View | None, accused: tuple[int, ...] = ()) -> Step:
    """Tell a view by what it changes in the one before; with None as the whole list."""
    told = (view.id, view.previous, view.previous_hash, view.at, view.hash)
    if before is None:
        return Step(*told, view.members, whole=True, accused=accused)
    held, now = set(before.members), {m.number for m in view.members}
    put = tuple(m for m in view.members if m not in held)
    return Step(*told, put, tuple(m.number for m in before.members if m.number not in now), accused=accused)


def view_of(step: Step, before: View | None) -> View | None:
    """Return the view that a step tells to one who holds `before`; None when it does not follow."""
    if step.whole:
        members = step.put
    elif before is None or (step.previous, step.previous_hash) != (before.id, before.hash):
        return None
    else:
        left = {m.number for m in step.put} | set(step.gone)
        members = tuple(sorted([*(m for m in before.members if m.number not in left), *step.put]))
    return View(step.id, step.previous, step.previous_hash, members, step.at, step.hash)


class Chain:
    """The last views a node holds, oldest first, and the boot ids that left in them."""

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self.views: list[View] = []
        self.departed: dict[str, ViewId] = {}
        self._checked: View | None = None
        self._boots: dict[int, str] = {}

    @property
    def last(self) -> View | None:
        """The newest view."""
        return self.views[-1] if self.views else None

    @property
    def id(self) -> ViewId:
        """The id of the newest view; `NO_VIEW` when there is none."""
        return self.views[-1].id if self.views else NO_VIEW

    @property
    def members(self) -> tuple[Member, ...]:
        """The members of the newest view."""
        return self.views[-1].members if self.views else ()

    def boot_id(self, number: int) -> str:
        """The boot id under which a node is in the newest view; empty when it is not."""
        return self._boots.get(number, "")

    def fits(self, view: View) -> bool:
        """Tell whether `view` is whole and follows the newest one. To an empty chain any whole view is a beginning."""
        if view.hash != digest(view):
            return False
        last = self.last
        return last is None or (view.previous == last.id and view.previous_hash == last.hash)

    def append(self, view: View) -> None:
        """Add the next view; it must fit."""
        assert self.fits(view), f"view {view.id} does not follow {self.id}"
        for member in difference(self.members, view.members)[1]:
            self.departed[member.boot_id] = view.id
        self.views.append(view)
        self._boots = {m.number: m.boot_id for m in view.members}
        if len(self.views) > self.kept:
            del self.views[0]
        while len(self.departed) > 8 * self.kept:
            del self.departed[next(iter(self.departed))]

    def restart(self, view: View) -> None:
        """Begin anew before `view`, not forgetting who departed: there is a gap that nobody can fill any more."""
        for member in difference(self.members, view.members)[1]:
            self.departed[member.boot_id] = view.id
        self.views.clear()
        self._boots = {}

    def since(self, held: ViewId) -> tuple[View, ...]:
        """Return the views after the one with id `held`; all, if that one is not in the chain."""
        for position in range(len(self.views) - 1, -1, -1):
            if self.views[position].id == held:
                return tuple(self.views[position + 1 :])
        return tuple(self.views)

    def steps(self, held: ViewId) -> tuple[tuple[Step, ...], bool]:
        """Return what follows the view with id `held`, as steps, and whether they begin with the whole list."""
        views = self.since(held)
        whole = bool(views) and views[0].previous != held
        before = self.views[-len(views) - 1] if views and not whole and len(views) < len(self.views) else None
        steps = []
        for view in views:
            steps.append(step_to(view, before))
            before = view
        return tuple(steps), bool(steps) and steps[0].whole

    def change(self, view: View) -> tuple[tuple[Member, ...], tuple[Member, ...]]:
        """Return who joined and who left with a view of the chain; nobody when what was before is not kept."""
        position = self.views.index(view)
        if not position and view.previous != NO_VIEW:
            return (), ()
        return difference(self.views[position - 1].members if position else (), view.members)

    def check(self) -> None:
        """Raise AssertionError when the chain is not one; looks at the newest link only, each is looked at once."""
        assert len(self.views) <= self.kept, "more views than are kept"
        if not self.views or self.views[-1] is self._checked:
            return
        view = self._checked = self.views[-1]
        numbers = [m.number for m in view.members]
        assert numbers == sorted(set(numbers)), f"members of view {view.id} are not sorted or not unique"
        boots = {m.boot_id for m in view.members}
        assert len(boots) == len(numbers), f"a boot id is twice in view {view.id}"
        back = sorted(boots & self.departed.keys())
        assert not back, f"removed boot ids {back} are back in view {view.id} (INV-20)"
        if len(self.views) > 1:
            before = self.views[-2]
            linked = view.previous == before.id and view.previous_hash == before.hash
            assert linked, f"view {view.id} does not follow {before.id} (INV-18)"
            assert view.id[1] == before.id[1] + 1 and view.id[0] >= before.id[0], "view ids do not rise (INV-19)"
