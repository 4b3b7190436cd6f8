"""Mistakes planted into the replicated registry: each is caught by the one script that is recorded here for it.

Other scripts and storms catch many of them too; those that `test_registry_exhaustive.py` finds are marked there. A
mistake counts as caught only by what it did (an AssertionError with the words recorded), not by a schedule that could
not be played.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import registry_changes as changes
import registry_mistakes as mistakes
import registry_schedules as schedules

CAUGHT: dict[mistakes.Plant, tuple[Callable[[], None], str]] = {
    mistakes.say_before_the_sync: (schedules.vote_waits_for_the_disk, "INV-7: 1 stands in epoch 2"),
    mistakes.acknowledge_what_was_only_heard: (schedules.snapshot_among_entries, "INV-7: 3 acknowledges"),
    mistakes.count_the_own_copy_unsynced: (schedules.acknowledged_is_durable, "INV-9: 1 commits 4, which only {2}"),
    mistakes.forget_the_vote: (schedules.lost_vote, "INV-7: 1 stands in epoch 2, its disk has a vote for None"),
    mistakes.write_no_cut: (schedules.crash_between_cut_and_entries, "entry 4 was ordered behind 5"),
    mistakes.acknowledge_a_snapshot_unsynced: (schedules.snapshot_among_entries, "INV-7: 3 acknowledges"),
    mistakes.forget_what_is_committed: (schedules.hint_outlives_a_restart, "INV-6: committed went back"),
    mistakes.vote_for_any_log: (schedules.newer_log_is_not_outvoted, "INV-4: 3 leads in epoch 3"),
    mistakes.vote_twice: (schedules.lost_vote, "INV-6: the vote of epoch 2 for 1 became one for 3"),
    mistakes.count_votes_of_any_epoch: (schedules.vote_of_an_earlier_life, "INV-3: two entries 3.2"),
    mistakes.half_is_a_majority: (schedules.half_is_no_majority, "INV-3: two entries 2.2"),
    mistakes.stand_without_asking_first: (schedules.rejoining_server_deposes_nobody, "a healthy primary was deposed"),
    mistakes.wait_equally_long: (schedules.all_start_at_once, "INV-31: after 30 s of peace nobody takes writes"),
    mistakes.lead_without_a_majority: (schedules.cut_off_while_all_others_lead_on, "without a majority leads on"),
    mistakes.learners_keep_their_vote: (changes.learner_is_asked_for_its_vote, "keeps its vote"),
    mistakes.hear_a_lower_generation: (changes.lower_generation, "INV-17: 3 leads in generation 0"),
    mistakes.take_over_when_told_long_ago: (changes.hand_over_that_fails, "an order of an earlier reign is followed"),
    mistakes.hand_over_at_once: (changes.hand_over_to_a_laggard, "the one chosen lacks entries"),
    mistakes.count_copies_of_old_epochs: (schedules.figure_eight, "INV-4: 5 leads in epoch 5 with another entry 2"),
    mistakes.commit_what_does_not_match: (schedules.commit_beyond_what_fits, "INV-5: 2 committed another entry 5"),
    mistakes.end_the_log_at_each_message: (schedules.overtaken_and_doubled, "an old message cut away"),
    mistakes.begin_without_an_entry: (schedules.read_in_an_unsettled_reign, "was read in a reign that is not settled"),
    mistakes.keep_old_proposals: (schedules.proposals_of_a_past_reign, "13: a user's entry while writes are closed"),
    mistakes.write_without_the_group: (schedules.writes_wait_for_the_group, "INV-13: writes opened without the group"),
    mistakes.read_without_asking: (schedules.deposed_primary_reads, "INV-10: a deposed primary reads"),
    mistakes.answer_a_past_reign: (schedules.message_of_an_earlier_reign, "INV-10: a deposed primary reads"),
    mistakes.join_the_round_under_way: (schedules.answer_to_an_older_round, "INV-10: a deposed primary reads"),
    mistakes.remember_no_answers: (changes.retry_after_a_fail_over, "INV-5: 2 counts revision"),
    mistakes.snapshot_without_answers: (changes.retry_at_a_copy_from_a_snapshot, "INV-5: 3 counts revision"),
    mistakes.forget_that_answers_were_forgotten: (changes.retry_that_comes_too_late, "INV-5: 1 counts revision"),
    mistakes.skip_a_revision: (changes.watch_over_a_fail_over, "a watch of /app/ goes on at 6, not at 5"),
    mistakes.count_who_was_before: (changes.in_force_when_appended, "INV-9: 1 commits 4, which only {1} of"),
    mistakes.change_two_at_once: (changes.two_at_once, "INV-16: 1 changes the servers while the change at 4"),
    mistakes.change_before_the_reign_is_settled: (changes.one_comes_and_one_goes, "INV-16"),
    mistakes.count_learners: (changes.learner_does_not_count, "INV-9: 1 commits 5, which only {1} of"),
    mistakes.damaged_copies_vote: (changes.damaged_copy_keeps_silent, "INV-8: 2 has no sound copy and votes for 3"),
    mistakes.believe_earlier_lives: (changes.lost_acknowledgement, "INV-8: what a lost copy had acknowledged"),
    mistakes.fill_before_the_note: (changes.lost_vote_for_an_epoch_to_come, "INV-3: two entries 3.4"),
}


@pytest.mark.parametrize("plant", CAUGHT, ids=lambda plant: plant.__name__)
def test_a_planted_mistake_is_caught(plant: mistakes.Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    script, words = CAUGHT[plant]
    plant(monkeypatch)
    with pytest.raises(AssertionError, match=re.escape(words)):
        script()


def test_every_mistake_is_here_and_says_what_it_is() -> None:
    assert sorted(CAUGHT, key=lambda plant: plant.__name__) == sorted(
        mistakes.MISTAKES, key=lambda plant: plant.__name__
    )
    assert all(plant.__doc__ for plant in CAUGHT)
