"""Traces: the three formats, as their authors publish them, and what is wrong with a line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.workload import sample_traces
from loadtests.workload.traces import TraceRequest, read_trace
from serving.errors import ConfigError

MOONCAKE = (
    '{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}\n'
    '{"timestamp": 30535, "input_length": 6472, "output_length": 26, "hash_ids": [46, 48]}\n'
)
AZURE_2023 = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
)
AZURE_2024 = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:00.017335+00:00,2399,6\n"
    "2024-05-10 00:00:01+00:00,7,8\n"
)
BURSTGPT = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,0,1087,Conversation log\n"
    "118,GPT-4,417,276,693,API log\n"
)
BURSTGPT_2 = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5.5,s1,1.2,ChatGPT,472,18,490,Conversation log\n"
)


def read(tmp_path: Path, text: str, form: str, speed: float = 1.0, until_s: float = 1e6):
    path = tmp_path / "trace"
    path.write_text(text)
    return read_trace(path, form, speed, until_s)


def test_mooncake(tmp_path: Path) -> None:
    first, second = read(tmp_path, MOONCAKE, "mooncake").requests
    assert first == TraceRequest(0.0, 6955, 52, (46, 47))
    assert second.at_s == pytest.approx(3.053)


@pytest.mark.parametrize(("text", "gap"), [(AZURE_2023, 4.314579), (AZURE_2024, 0.007405)])
def test_azure_of_both_years(tmp_path: Path, text: str, gap: float) -> None:
    requests = read(tmp_path, text, "azure").requests
    assert requests[0].at_s == 0
    assert requests[1].at_s == pytest.approx(gap, abs=1e-6)
    assert (requests[0].input_tokens, requests[0].output_tokens) in [(374, 44), (2162, 5)]


def test_burstgpt_without_the_failed_ones(tmp_path: Path) -> None:
    trace = read(tmp_path, BURSTGPT, "burstgpt", speed=2.0)
    assert [one.at_s for one in trace.requests] == [0.0, 56.5]
    assert trace.left_out == 1
    assert read(tmp_path, BURSTGPT_2, "burstgpt").requests[0].output_tokens == 18


def test_only_the_beginning_is_played(tmp_path: Path) -> None:
    assert len(read(tmp_path, BURSTGPT, "burstgpt", until_s=50).requests) == 1


@pytest.mark.parametrize(
    ("text", "form", "complaint"),
    [
        (MOONCAKE + "{oops\n", "mooncake", r"line 3: it is not a JSON object"),
        ('{"timestamp": 1}\n', "mooncake", r"line 1: there is no input_length; is arrivals.format"),
        (MOONCAKE.replace("6472", '"x"'), "mooncake", r"line 2: input_length 'x' is no number"),
        (MOONCAKE.replace("6472", "null"), "mooncake", r"line 2: input_length 'None' is no"),
        (MOONCAKE.replace("[46, 48]", '"46"'), "mooncake", r"line 2: hash_ids is no list"),
        (MOONCAKE.replace("[46, 48]", "[46, null]"), "mooncake", r"line 2: hash_ids is no list"),
        (BURSTGPT, "mooncake", r"line 1: it is not a JSON object; is arrivals.format right"),
        (BURSTGPT + "nan,ChatGPT,1,1,2,API log\n", "burstgpt", r"line 5: Timestamp 'nan' is no"),
        (BURSTGPT + "inf,ChatGPT,1,1,2,API log\n", "burstgpt", r"line 5: Timestamp 'inf' is no"),
        (BURSTGPT + f"9,{'x' * 140_000},1,1,2,y\n", "burstgpt", r"line 5: it is not CSV: field"),
        (BURSTGPT.replace(",18,", ",0,").replace(",276,", ",0,"), "burstgpt", r"got an answer"),
        ("[1]\n", "mooncake", r"line 1: it is not a JSON object"),
        (AZURE_2023 + "yesterday,1,2\n", "azure", r"line 4: TIMESTAMP 'yesterday' is no time"),
        (
            AZURE_2023 + "2023-11-16 18:15:51,x,2\n",
            "azure",
            r"line 4: ContextTokens 'x' is no number",
        ),
        (AZURE_2023 + "2023-11-16 18:15:51\n", "azure", r"line 4: it has fewer columns"),
        ("a,b\n1,2\n", "azure", r"line 1: the column TIMESTAMP is missing"),
        (
            BURSTGPT + "x,ChatGPT,1,1,2,API log\n",
            "burstgpt",
            r"line 5: Timestamp 'x' is no number; correct the line",
        ),
        ("", "mooncake", r"there is no request in it"),
        (MOONCAKE, "mooncacke", r"'mooncacke' is unknown; known: mooncake, azure, burstgpt"),
    ],
)
def test_what_is_wrong_is_named_by_its_line(
    tmp_path: Path, text: str, form: str, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        read(tmp_path, text, form)


def test_a_trace_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_trace(tmp_path / "none", "azure", 1, 1)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        read_trace(tmp_path / "binary", "azure", 1, 1)


@given(times=st.lists(st.integers(0, 10**6), min_size=1), speed=st.sampled_from([0.5, 1.0, 8.0]))
def test_times_begin_with_zero_and_are_in_order(
    tmp_path_factory: pytest.TempPathFactory, times: list[int], speed: float
) -> None:
    rows = "".join(f"{at},GPT-4,{number + 1},1,2,API log\n" for number, at in enumerate(times))
    text = BURSTGPT.splitlines(keepends=True)[0] + rows
    requests = read(tmp_path_factory.getbasetemp(), text, "burstgpt", speed, 1e9).requests
    expected = [(at - min(times)) / speed for at in sorted(times)]
    assert [one.at_s for one in requests] == pytest.approx(expected)
    assert sorted(one.input_tokens for one in requests) == list(range(1, len(times) + 1))


def test_what_lies_far_behind_is_not_read(tmp_path: Path) -> None:
    text = BURSTGPT + "9999,ChatGPT,472,18,490,API log\nnot read any more\n"
    assert len(read(tmp_path, text, "burstgpt", until_s=200).requests) == 2


@pytest.mark.parametrize("name", sample_traces.SAMPLES)
def test_the_samples_are_what_their_program_makes(name: str) -> None:
    text = (sample_traces.FOLDER / name).read_text(encoding="utf-8")
    assert text == sample_traces.SAMPLES[name]()
    requests = read_trace(sample_traces.FOLDER / name, name.split(".")[0], 1.0, 1e6).requests
    assert len(requests) > 200
    assert max(one.input_tokens for one in requests) <= 700
