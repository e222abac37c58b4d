"""The planner against simulated replicas, a few of them; all: `python -m loadtests.checks.plan_bar`."""

from __future__ import annotations

from loadtests.checks.plan_bar import Effort, Verdict, cases, holds, judge, share_right

QUICK = Effort(requests=6000, precision=0.05, sweeps=3, true_requests=12_000)


def test_it_is_close_and_never_short_by_more_than_one() -> None:
    verdicts = [judge(case, QUICK) for case in cases(6, seed=3, most_replicas=4)]
    assert all(-1 <= one.difference <= 1 for one in verdicts)
    assert share_right(verdicts) >= 0.8
    assert len({one.true for one in verdicts}) > 1


def test_the_bar_is_missed_by_too_many_errors_and_by_one_that_is_too_large() -> None:
    right = [Verdict(3, 3, (1,))] * 96
    assert holds(right + [Verdict(4, 3, (1,))] * 4)
    assert not holds(right + [Verdict(4, 3, (1,))] * 6)
    assert not holds([*right, Verdict(3, 5, (1,))])
