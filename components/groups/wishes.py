"""What a party of this node wants, checked as far as it can be here, and made a proposal.

Pure functions of the question and of the group as this node knows it.
"""

from __future__ import annotations

from ... import errors
from .messages import Member, Proposal, Terms
from .questions import Broadcast, Expel, JoinGroup, LeaveGroup, ProposeVote, SetState, Wish
from .replica import Group
from .settings import NAME, SYSTEM_PREFIX, Settings

VOTABLE = ("join", "expel", "state")
"""What a group can put to the vote each time; messages are, when they are proposed."""


def check(question: Wish, exists: bool, groups: int, settings: Settings) -> None:
    """Raise UsageError, Denied, Refused or TooLarge for what cannot be. `groups`: how many the cluster has ever had."""
    name = question.group
    check_name(name)
    stranger = not question.component if isinstance(question, JoinGroup) else getattr(question, "outside", False)
    if name.startswith(SYSTEM_PREFIX) and stranger:
        raise errors.Denied(f"the group {name} is for covey's own components", "choose a name without sys.")
    if isinstance(question, JoinGroup):
        if not exists and groups >= settings.groups:
            raise errors.Refused(f"the cluster has {groups} groups, the most it can have")
        wrong = [op for op in question.voted if op not in VOTABLE]
        if wrong:
            raise errors.UsageError(f"a group cannot vote on '{wrong[0]}'", f"it can on: {', '.join(VOTABLE)}")
    elif isinstance(question, Broadcast) and question.fast and question.outside:
        raise errors.UsageError("only a member can send fast messages", "join the group, or send a strong one")
    elif isinstance(question, ProposeVote):
        _check_terms(question.terms, settings)
    body = _body(question)
    if len(body) > settings.body_bytes:
        text = f"{len(body)} bytes were to go to the group {name}; {settings.body_bytes} are allowed"
        raise errors.TooLarge(text, "put it in the registry and tell the group its key")


def check_name(name: str) -> None:
    """Raise UsageError for what no group is named."""
    if not NAME.fullmatch(name):
        raise errors.UsageError(f"{name[:80]!r} is no name for a group", "1 to 64 of the characters a-z 0-9 . _ -")


def _check_terms(terms: Terms, settings: Settings) -> None:
    if not (1 <= terms.phases <= settings.phases and 0 < terms.deadline <= settings.deadline_at_most):
        limits = f"1 to {settings.phases}, each more than 0 s and at most {settings.deadline_at_most:g} s"
        raise errors.UsageError(
            f"phases: {terms.phases}, of {terms.deadline:g} s each, is nothing a vote can have", limits
        )


def _body(question: Wish) -> bytes:
    if isinstance(question, JoinGroup):
        return question.state
    if isinstance(question, SetState):
        return question.value
    if isinstance(question, Expel):
        return question.reason
    return b"" if isinstance(question, LeaveGroup) else question.body


def proposal(question: Wish, group: Group) -> Proposal:
    """Return the proposal, not numbered yet; raises NotFound and Ambiguous for who is to be expelled."""
    party, body = question.party, _body(question)
    if isinstance(question, JoinGroup):
        return Proposal(0, "join", party, body, voted=question.voted)
    if isinstance(question, LeaveGroup):
        return Proposal(0, "leave", party)
    if isinstance(question, Broadcast):
        return Proposal(0, "message", party, body, outside=question.outside)
    if isinstance(question, SetState):
        return Proposal(0, "state", party, body, outside=question.outside)
    if isinstance(question, ProposeVote):
        return Proposal(0, "propose", party, body, question.terms, outside=question.outside)
    return Proposal(0, "expel", party, body, target=_member(group, question.target), outside=question.outside)


def _member(group: Group, text: str) -> Member:
    """Find the member that `PARTY` or `PARTY@NODE` names."""
    party, at, node = text.rpartition("@")
    if not (at and node.isdigit()):
        party, node = text, ""
    found = [member for member in group.members.values() if member.party == party and node in ("", str(member.node))]
    if not found:
        raise errors.NotFound(f"the group {group.name} has no member {text}", "`covey group show` shows who is")
    if len(found) > 1:
        choices = ", ".join(f"{member.party}@{member.node}" for member in found)
        raise errors.Ambiguous(f"several members of the group {group.name} are called {text}", f"say which: {choices}")
    return found[0]
