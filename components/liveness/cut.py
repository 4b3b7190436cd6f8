"""Whom to remove: the largest cut that the accusations support.

Knows numbers only. A member goes when a majority of the others accuses it. Others who go at the same time
have no say, else three nodes could never lose two; so what is looked for is a *set*, each of whose members is
accused by a majority of those who stay. It is found from above: everybody accused, less, one by one, whoever
is accused least by those who would stay. The leader always stays: if it is the one who is cut off, the
registry gives it no majority for what it commits, and its word is void.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set


def cut(members: Iterable[int], accusers: Mapping[int, Set[int]], leader: int) -> set[int]:
    """Return the members to remove; `accusers` maps a member to those who accuse it. `leader` is never removed."""
    all_members = set(members)
    going = {n for n in all_members if accusers.get(n) and n != leader}
    while going:
        staying = all_members - going
        support = {n: len(accusers[n] & staying) for n in going}
        if all(2 * count > len(staying - {n}) for n, count in support.items()):
            return going
        going.remove(min(going, key=lambda n: (support[n], len(accusers[n]), -n)))
    return going
