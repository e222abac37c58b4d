from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import plotly.graph_objects as go
import pytest
import yaml

from loadtests import report
from loadtests.analysis.columns import Columns
from loadtests.analysis.stats import wilson_lower
from loadtests.analysis.summary import summarise
from loadtests.report.chart import Chart, Line, milliseconds, number, percent
from loadtests.report.page import without_user
from loadtests.report.picture import draw
from loadtests.report.plot import as_json
from loadtests.report.run_charts import charts_of
from loadtests.report.run_page import BROKEN_ANSWERS, INVALID
from loadtests.report.run_page import verdict_of as run_verdict_of
from loadtests.report.series import panels
from loadtests.report.sweep_charts import charts_of as sweep_charts_of
from loadtests.report.sweep_page import links_of, points_table, verdict_of
from loadtests.report.timeline import by_window, cdf_of, edges_to, knee_of, timeline_of
from loadtests.run.record import write_records
from loadtests.workload.scenario import Scenario
from serving.errors import ConfigError
from tests.loadtests.analysis.test_summary import Rows, make_lag, make_records, make_scenario

EVIL = "</script><img src=x onerror=alert(1)>$x$"


class Reader(HTMLParser):
    """Elements that are not closed, what is asked of the network, and the text between."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.asked: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.figures: dict[str, Any] = {}
        self._figure = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag not in self.VOID:
            self.open.append(tag)
        self.asked += [value or "" for name, value in attrs if name in ("src", "href", "action")]
        self._figure = found.get("id") or "" if found.get("type") == "application/json" else ""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._figure and self.open[-1] == "script":
            self.figures[self._figure] = json.loads(data)
        elif self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def leave(
    folder: Path,
    records: Any,
    scenario: Scenario | None = None,
    lag: Rows | None = None,
    metrics: Rows | None = None,
) -> Path:
    """A run's folder."""
    folder.mkdir(exist_ok=True)
    document = (scenario or make_scenario()).model_dump(mode="json", exclude_defaults=True)
    (folder / "scenario.yaml").write_text(yaml.safe_dump(document, allow_unicode=True))
    write_records(folder, records)
    for name, rows in (("lag.jsonl", lag), ("metrics.jsonl", metrics)):
        if rows:
            (folder / name).write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return folder


def read(folder: Path) -> Reader:
    return Reader((folder / "report.html").read_text(encoding="utf-8"))


def make_metrics(seconds: int = 32) -> Rows:
    """A gateway with two models, and two engines of one of them."""
    rows: Rows = []
    for second in range(seconds):
        gateway = {
            'comptoir_replicas{model="small"}': 1.0 + (second > 15),
            'comptoir_replicas{model="large"}': 1.0,
            'comptoir_admission_waiting{model="small"}': 2.0,
        }
        rows.append({"t_s": second + 0.1, "source": "gateway", "values": gateway})
        for engine in range(2):
            labels = f'{{engine="0",model_name="small",run="{EVIL}"}}'
            values = {
                f"vllm:num_requests_running{labels}": 3.0,
                f"vllm:num_requests_waiting{labels}": 1.0,
                f"vllm:kv_cache_usage_perc{labels}": 0.25 + engine / 2,
                f"vllm:prefix_cache_hits_total{labels}": 30.0 * second,
                f"vllm:prefix_cache_queries_total{labels}": 100.0 * second,
            }
            rows.append({"t_s": second + 0.2, "source": f"engine-{engine}", "values": values})
    return rows


# ---- the page of a run -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has everything, with its report."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    leave(folder, make_records(), None, make_lag(), make_metrics())
    assert report.build(folder) == folder / "report.html"
    return folder


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without the plotting library: most of what a test would read of them."""
    monkeypatch.setattr("loadtests.report.page.get_plotlyjs", lambda: "")


@pytest.fixture
def no_pictures(no_library: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is drawn either: most of what a report takes."""

    def draw(charts: Any, path: Path, **_: Any) -> Path:
        path.write_bytes(b"\x89PNG")
        return path

    monkeypatch.setattr("loadtests.report.run_page.draw", draw)


def test_a_run_becomes_one_page_and_two_pictures(whole: Path) -> None:
    folder, page = whole, read(whole)
    assert page.open == []
    for name in ("latency.png", "timeline.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    # Nothing is asked of the network, nor of other files.
    assert all(one.startswith(("#", "data:")) for one in page.asked)
    for word in ("Objectives", "Latency", "Over time", "Errors", "Scenario", "name: mixed"):
        assert word in page.text
    assert "Valid run" in page.text
    assert {
        "data-cdf-ttft",
        "data-cdf-e2e",
        "data-rates",
        "data-in-flight",
        "data-ttft-time",
        "data-server-replicas",
        "data-server-queue",
        "data-server-kv",
        "data-server-cache",
        "data-lag",
        "data-cpu",
    } <= set(page.figures)


def test_the_plotting_library_is_in_the_page_once(whole: Path) -> None:
    html = (whole / "report.html").read_text(encoding="utf-8")
    assert html.count("var Plotly=") == 1
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "http" not in policy[1]


def test_plotly_knows_everything_that_is_in_a_figure(whole: Path) -> None:
    figures = read(whole).figures
    assert len(figures) > 8
    for figure in figures.values():
        # Raises for a name or a value it does not know.
        go.Figure(figure)


def test_every_plot_has_words_and_a_table_beside_it(whole: Path) -> None:
    page = read(whole)
    plots = [attrs for tag, attrs in page.tags if (attrs.get("class") or "") == "plot"]
    tables = [attrs for tag, attrs in page.tags if tag == "details"]
    assert len(plots) == len(tables) == len(page.figures) > 5
    for attrs in plots:
        assert attrs["role"] == "img"
        assert re.search(r"\d", attrs["aria-label"] or "")
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")


@pytest.mark.usefixtures("no_pictures")
def test_an_invalid_run_says_so_first_with_its_reasons(tmp_path: Path) -> None:
    folder = leave(tmp_path / "run", make_records(lag_s=0.05), None, make_lag(p99_ms=80))
    report.build(folder)
    page = read(folder)
    verdict = page.text.index(INVALID)
    assert verdict < page.text.index("Good requests")
    assert "requests were sent late" in page.text
    assert "too busy to time answers" in page.text
    assert any((attrs.get("class") or "") == "verdict bad" for _, attrs in page.tags)


def test_a_missed_objective_is_not_an_invalid_run() -> None:
    slow = run_verdict_of(summarise(make_scenario(), make_records(slow=4), [], []))
    assert (slow.state, slow.headline) == ("warn", "Valid run: the server missed its objectives")
    assert slow.reasons[0].startswith("chat (small, tenant shop): ")
    kept = run_verdict_of(summarise(make_scenario(), make_records(failing=0), [], []))
    assert (kept.state, kept.reasons) == ("good", ())


def test_a_name_with_dollar_signs_is_drawn_as_it_is(tmp_path: Path) -> None:
    """Matplotlib would take it for a formula, and this one for a wrong one."""
    name = "$\\frac$"
    (chart, *_) = charts_of(make_scenario(), Columns.of(make_records(count=60)), [], []).latency
    chart = replace(chart, title=name, lines=(replace(chart.lines[0], name=name),))
    path = draw([chart], tmp_path / "one.png", title=name, note=name, columns=1, row_height=2)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("no_pictures")
def test_what_comes_from_outside_is_text_and_nothing_else(tmp_path: Path) -> None:
    records = make_records()
    for one in records[200:220]:
        one.error, one.model = EVIL, EVIL
    scenario = make_scenario(description=EVIL)
    metrics = make_metrics()
    for row in metrics:
        row["values"][f'comptoir_replicas{{model="{EVIL}"}}'] = 1.0
    folder = leave(tmp_path / "run", records, scenario, make_lag(), metrics)
    report.build(folder)
    page = read(folder)
    assert page.open == []
    # Pictures for those without scripts are the only ones, and none has a handler.
    assert {attrs["src"][:5] for tag, attrs in page.tags if tag == "img"} == {"data:"}  # type: ignore[index]
    assert not any("onerror" in attrs for _, attrs in page.tags)
    assert EVIL in page.text
    names = {one["name"] for one in page.figures["data-server-replicas"]["data"]}
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;$x$" in names


@pytest.mark.usefixtures("no_pictures")
def test_names_and_passwords_in_addresses_are_not_shown(tmp_path: Path) -> None:
    target = {"url": "http://bob:secret@host:1", "metrics": ["https://eve:opensesame@host/metrics"]}
    folder = leave(tmp_path / "run", make_records(), make_scenario(target=target))
    html = report.build(folder).read_text(encoding="utf-8")
    assert "secret" not in html
    assert "opensesame" not in html
    assert "http://…@host:1" in html
    assert without_user("http://host/a@b") == "http://host/a@b"


def test_without_lag_and_metrics_there_are_fewer_plots() -> None:
    charts = charts_of(make_scenario(), Columns.of(make_records()), [], [])
    assert [one.key for one in charts.timeline] == ["rates", "in-flight", "ttft-time"]
    assert [one.key for one in charts.generator] == ["lag"]
    assert [line.name for line in charts.generator[0].lines] == ["send lag p99"]


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("count", [0, 1, 50])
def test_without_a_complete_answer_there_is_still_a_page(tmp_path: Path, count: int) -> None:
    folder = leave(tmp_path / "run", make_records(count=count, failing=1), None, make_lag())
    (folder / "latency.png").write_bytes(b"of an older report")
    report.build(folder)
    page = read(folder)
    assert "No request was answered in full" in page.text
    assert not any("cdf" in name for name in page.figures)
    assert not (folder / "latency.png").exists()


@pytest.mark.usefixtures("no_pictures")
def test_the_summary_in_the_folder_is_the_one_that_is_shown(tmp_path: Path) -> None:
    folder = leave(tmp_path / "run", make_records())
    summary = summarise(make_scenario(), make_records(), [], [])
    summary["invalid_because"], summary["valid"] = ["the moon was full"], False
    (folder / "summary.json").write_bytes(orjson.dumps(summary))
    report.build(folder)
    page = read(folder)
    assert "the moon was full" in page.text
    assert "No metrics of the server were scraped" in page.text
    assert "The generator left no figures of its own lag" in page.text


def test_a_folder_without_a_run_is_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"scenario\.yaml is missing"):
        report.build(tmp_path)
    with pytest.raises(ConfigError, match=r"sweep\.json is missing"):
        report.build_sweep(tmp_path)


def test_many_requests_make_no_larger_plots() -> None:
    few = make_records(count=2000)
    columns = Columns.of(few * 10)
    charts = charts_of(make_scenario(), columns, make_lag(), make_metrics())
    texts = [as_json(one) for one in (*charts.latency, *charts.timeline, *charts.generator)]
    assert len(columns) == 20_000
    assert max(map(len, texts)) < 40_000


# ---- what is drawn -----------------------------------------------------------------------------------


def test_windows_count_every_request_once() -> None:
    records = make_records()
    timeline = timeline_of(Columns.of(records), 30)
    assert (timeline.offered_per_s * timeline.width_s).sum() == pytest.approx(len(records))
    ended = (timeline.completed_per_s + timeline.failed_per_s) * timeline.width_s
    assert ended.sum() == pytest.approx(len(records))
    stays_s = sum(one.end_s - one.intended_s for one in records)
    assert (timeline.in_flight * timeline.width_s).sum() == pytest.approx(stays_s)


def test_a_window_has_the_percentiles_of_its_requests() -> None:
    random = np.random.default_rng(1)
    times, values = random.uniform(0, 10, 500), random.exponential(1, 500)
    values[::7] = np.nan
    edges = np.arange(13.0)
    (found,) = by_window(times, values, edges, (95,))
    for place in range(10):
        mine = values[(times >= place) & (times < place + 1)]
        assert found[place] == pytest.approx(np.nanpercentile(mine, 95))
    assert np.isnan(found[10:]).all()


@pytest.mark.parametrize("end_s", [0.0, 0.05, 7, 61.3, 3600, 7 * 86_400])
def test_windows_reach_the_end_and_are_few(end_s: float) -> None:
    edges = edges_to(end_s)
    assert edges[0] == 0
    assert edges[-1] >= end_s
    assert 2 <= edges.size <= 122


def test_a_distribution_rises_from_the_least_to_the_most() -> None:
    found = np.random.default_rng(1).lognormal(3, 1, 5000)
    values, percents = cdf_of(found)
    assert (np.diff(values) >= 0).all()
    assert (values[0], values[-1]) == (found.min(), found.max())
    assert np.interp(99, percents, values) == pytest.approx(np.percentile(found, 99))
    assert cdf_of(np.array([np.nan]))[0].size == 0


def test_a_servers_metrics_are_put_together_as_they_are_meant() -> None:
    found = {one.key: one for one in panels(make_metrics(), np.arange(33.0))}
    assert list(found) == ["replicas", "queue", "kv", "cache"]
    lines = {line.name: line.values for line in found["replicas"].lines}
    assert (lines["small"][0], lines["small"][-1], lines["large"][0]) == (1, 2, 1)
    queue = {line.name: line.values[3] for line in found["queue"].lines}
    assert queue == {"running": 6, "waiting in engines": 2, "waiting at the gateway": 2}
    # Of two engines, one at a quarter and one at three.
    assert found["kv"].lines[0].values[3] == pytest.approx(50)
    hits = found["cache"].lines[0].values
    assert hits[np.isfinite(hits)] == pytest.approx(30)


def test_metrics_that_were_not_scraped_are_left_out() -> None:
    assert panels([], edges_to(10)) == []
    rows = [{"t_s": 1.0, "source": "a", "values": {"vllm:num_requests_running": 0.0}}]
    (panel,) = panels(rows, edges_to(10))
    (line,) = panel.lines
    assert np.isfinite(line.values).sum() == 1


def test_a_counter_that_begins_anew_does_not_fall() -> None:
    def row(at_s: float, value: float) -> dict[str, Any]:
        return {"t_s": at_s, "source": "host", "values": {"host_energy_joules_total": value}}

    rows = [row(0.5, 1000), row(1.5, 1100), row(2.5, 50), row(3.5, 150)]
    (panel,) = panels(rows, np.arange(5.0))
    values = panel.lines[0].values
    assert values[1:].tolist() == [100, 50, 100]


def test_the_knee_is_where_latency_turns_up() -> None:
    rates = np.array([1.0, 2, 3, 4, 5, 6])
    assert knee_of(rates, np.array([10.0, 10, 11, 12, 60, 200])) == 3
    assert knee_of(rates, rates * 10) is None
    assert knee_of(rates[:3], np.array([1.0, 1, 9])) is None


def test_a_table_of_a_distribution_has_its_percentiles() -> None:
    line = Line("all", np.linspace(0, 200, 101), np.linspace(0, 100, 101), "#000")
    chart = Chart("a", "A", "", "ms", "% within", (line,), is_distribution=True)
    head, rows = chart.table
    assert head == ["% within", "all, ms"]
    assert ["50", "100"] in rows


def test_numbers_are_short_and_do_not_promise_too_much() -> None:
    assert [number(one) for one in (0.012, 1.234, 45.67, 12345.6, None)] == [
        "0.012",
        "1.23",
        "45.7",
        "12,346",
        "–",
    ]
    assert (milliseconds(12.3), milliseconds(65_000)) == ("12.3 ms", "65 s")
    assert (percent(0.9999), percent(1.0), percent(0.29)) == ("99.9 %", "100 %", "29 %")


# ---- sweeps ------------------------------------------------------------------------------------------


def make_sweep(**changes: Any) -> dict[str, Any]:
    """Holds eight requests per second."""
    points = []
    for place, (rate, good) in enumerate([(2, 198), (4, 396), (8, 790), (16, 700), (11, 900)]):
        total = rate * 100
        low = wilson_lower(good, total)
        points.append(
            {
                "rate_per_s": rate,
                "requests": total,
                "good": good,
                "attainment": good / total,
                "wilson_low": low,
                "backlog_grows": rate > 10,
                "valid": True,
                "passed": low >= 0.95,
                "e2e_mean_s": 1.0 + (rate > 8) * 9,
                "ttft_p95_ms": 100.0 + (rate > 8) * rate * 100,
                "output_tokens_per_s": 100.0 * min(rate, 10),
                "in_flight_mean": 2.0 * rate,
                "is_confirmation": False,
                "folder": f"point-{place + 1:02d}",
            }
        )
    points.append(points[2] | {"is_confirmation": True, "folder": "point-06"})
    return {
        "comptoir_sweep": 1,
        "created": "2026-01-01T00:00:00+00:00",
        "scenario": "chat",
        "url": "http://bob:secret@host",
        "model": EVIL,
        "hardware": {"gpu": None, "gpus_per_replica": 0, "replicas": 1},
        "class": "chat",
        "input_tokens_mean": 64.0,
        "output_tokens_mean": 32.0,
        "total_tokens_p95": 200,
        "slo": {"ttft_ms": 400, "target": 0.95},
        "points": points,
        "rate_per_s": 8,
        "rate_fails_per_s": 11,
        "confirmed": True,
    } | changes


def leave_sweep(folder: Path, sweep: dict[str, Any]) -> Reader:
    folder.mkdir()
    (folder / "point-01").mkdir()
    (folder / "point-01" / "report.html").touch()
    (folder / "sweep.json").write_bytes(orjson.dumps(sweep))
    assert report.build_sweep(folder) == folder / "report.html"
    return read(folder)


@pytest.mark.usefixtures("no_library")
def test_a_sweep_becomes_a_page_and_a_picture(tmp_path: Path) -> None:
    page = leave_sweep(tmp_path / "sweep", make_sweep())
    assert page.open == []
    assert (tmp_path / "sweep" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "1 replica held 8 requests/s, confirmed; 11 requests/s did not hold" in page.text
    assert set(page.figures) == {"data-ttft", "data-e2e", "data-attainment", "data-tokens"}
    for figure in page.figures.values():
        go.Figure(figure)
    assert EVIL in page.text
    assert "secret" not in page.text
    # Of the points, those whose report is there are linked.
    files = [one for one in page.asked if not one.startswith(("#", "data:"))]
    assert files == ["./point-01/report.html"]


def test_a_sweeps_plots_mark_what_was_found() -> None:
    charts = {one.key: one for one in sweep_charts_of(make_sweep())}
    words = {one.text: one.at for one in charts["ttft"].marks}
    assert words == {"SLO 400 ms": 400, "knee": 8, "λ* = 8/s": 8}
    (bracket,) = charts["ttft"].bands
    assert (bracket.since, bracket.until) == (8, 11)
    line = charts["attainment"].lines[0]
    assert line.low is not None
    assert line.high is not None
    assert (line.low <= line.y).all()
    assert (line.y <= line.high).all()


def test_runs_of_one_rate_are_one_point_of_a_plot() -> None:
    sweep = make_sweep()
    again = sweep["points"][2] | {"good": 700, "attainment": 0.875, "ttft_p95_ms": 300.0}
    sweep["points"].append(again)
    lines = {one.key: one.lines[0] for one in sweep_charts_of(sweep)}
    assert list(lines["ttft"].x) == [2, 4, 8, 11, 16]
    assert lines["ttft"].y[2] == pytest.approx((100 + 100 + 300) / 3)
    assert lines["attainment"].y[2] == pytest.approx(100 * (790 + 790 + 700) / 2400)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rate_per_s": 0.0, "confirmed": False}, "No rate was confirmed to hold"),
        ({"confirmed": False}, "8 requests/s on 1 replica held once and was not confirmed"),
        ({"rate_fails_per_s": None}, "no higher rate failed"),
    ],
)
def test_a_sweep_says_how_sure_it_is(changes: dict[str, Any], words: str) -> None:
    assert words in verdict_of(make_sweep(**changes)).headline


@pytest.mark.usefixtures("no_library")
def test_a_sweep_without_points_is_still_a_page(tmp_path: Path) -> None:
    sweep = make_sweep(points=[], rate_per_s=0.0, rate_fails_per_s=None, confirmed=False)
    (tmp_path / "sweep.json").write_bytes(orjson.dumps(sweep))
    report.build_sweep(tmp_path)
    assert "No point of the sweep is valid" in read(tmp_path).text


def test_only_reports_inside_a_sweeps_folder_are_linked(tmp_path: Path) -> None:
    sweep, folder = make_sweep(), tmp_path / "sweep"
    sweep["points"][1]["folder"] = "../other"
    for place in ("sweep/point-01", "other"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "report.html").touch()
    assert links_of(folder, sweep) == {"point-01": "./point-01/report.html"}


def test_points_of_a_generator_that_was_late_are_listed_and_not_drawn() -> None:
    sweep = make_sweep()
    sweep["points"][3]["valid"] = False
    assert all(16 not in one.lines[0].x for one in sweep_charts_of(sweep))
    assert "INVALID" in [cell.text for cell in points_table(sweep, {}).rows[3]]


@pytest.mark.usefixtures("no_pictures")
def test_a_run_with_a_broken_answer_meets_no_objective_and_says_which(tmp_path: Path) -> None:
    records = make_records(failing=0)
    records[-1].error = "error_body"
    records[-2].output_tokens, records[-2].asked_output = 3, 30
    folder = leave(tmp_path / "run", records, lag=make_lag())
    report.build(folder)
    text = read(folder).text
    assert BROKEN_ANSWERS in text
    assert "1 × error_body: status 200, and the body is an error" in text
    assert "broken answers" in text
    assert "1 answers have fewer tokens than planned" in text
    assert "every objective was met" not in text


def test_a_sweep_with_broken_answers_says_so() -> None:
    point = {"rate_per_s": 1.0, "broken": 2, "valid": True}
    sweep = {"rate_per_s": 0.0, "rate_fails_per_s": 1.0, "points": [point]}
    assert "2 answers with status 200 were incomplete" in verdict_of(sweep).headline
