from __future__ import annotations

import pytest

from loadtests.bench import cli
from loadtests.bench.compare.cells import ALL, QUICK, STANDARD
from loadtests.bench.compare.contenders import CONTENDERS
from loadtests.bench.compare.plan import ComparePlan


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nul"], "there is no command 'nul'; available: compare, null, idle, work, unread, soak"),
        (
            ["--contenders", "vllm,foo"],
            "--contenders: there is no contender 'foo'; available: vllm",
        ),
        (["--contenders", ""], "--contenders: there is no contender ''"),
        (["--rounds", "0"], "'--rounds': Input should be greater than or equal to 1"),
        (
            ["null", "--requests", "10"],
            "'--requests': Input should be greater than or equal to 500",
        ),
        (["null", "--interval-ms", "-1"], "'--interval-ms': '-1' is not a number above 0"),
        (["soak", "--minutes", "nan"], "'--minutes': 'nan' is not a number above 0"),
        (["--quick", "--all-cells"], "--all-cells: not with --quick"),
        (
            ["--client", "curl"],
            "'--client': Value error, 'curl' is not one of 'vllm', 'own', 'both'",
        ),
        (["--picture", "a.gif"], "--picture: 'a.gif' does not end in .svg or .png"),
        (["--paired", "--contenders", "ray"], "--paired: compares with vllm"),
        (["idle", "--strem", "3"], "No such option: --strem"),
    ],
)
def test_wrong_input_is_answered_in_one_line_that_names_the_option(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    printed = capsys.readouterr().err
    assert complaint in printed
    assert printed.startswith("bench: ")
    assert printed.count("\n") == 1


@pytest.mark.parametrize("command", [[], *([name] for name in cli.COMMANDS)])
def test_help_teaches_with_an_example(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*command, "--help"]) == 0
    assert "make bench ARGS=" in capsys.readouterr().out


def plan_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[ComparePlan, bool]:
    plans: list[tuple[ComparePlan, bool]] = []

    def run(plan: ComparePlan, *, strict: bool) -> int:
        plans.append((plan, strict))
        return 0

    monkeypatch.setattr("loadtests.bench.compare.mode.run", run)
    assert cli.main(list(arguments)) == 0
    return plans[0]


def test_without_arguments_everybody_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, strict = plan_of(monkeypatch)
    assert (plan.contenders, plan.cells, plan.rounds) == (list(CONTENDERS), STANDARD, 3)
    assert tuple(plan.clients) == ("vllm", "own")
    assert not strict


def test_quick_is_one_round_of_few_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, strict = plan_of(monkeypatch, "--quick", "--client", "own", "--strict")
    assert (plan.cells, plan.rounds, tuple(plan.clients)) == (QUICK, 1, ("own",))
    assert strict
    # Two streamed cells and two that are not, with one client.
    assert plan.bursts == 4


def test_contenders_take_turns_in_the_given_order(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, _ = plan_of(
        monkeypatch, "compare", "--contenders", "comptoir, vllm,comptoir", "--all-cells"
    )
    assert plan.contenders == ["comptoir", "vllm"]
    assert plan.cells == ALL


def test_bursts_of_pairs_are_shorter_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan_of(monkeypatch)[0].burst_s == 5
    assert plan_of(monkeypatch, "--paired")[0].burst_s == 3
    assert plan_of(monkeypatch, "--paired", "--seconds", "1.5")[0].burst_s == 1.5
