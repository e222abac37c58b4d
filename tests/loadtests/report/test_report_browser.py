from __future__ import annotations

import importlib
import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtests import report
from tests.loadtests.analysis.test_summary import make_lag, make_records
from tests.loadtests.report.test_report import leave, make_metrics

pytestmark = pytest.mark.browser
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("needs the Python package playwright: make install-dev")
    sync_api = importlib.import_module("playwright.sync_api")
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    with sync_api.sync_playwright() as driver:
        if found is None and not Path(driver.chromium.executable_path).exists():
            pytest.skip("needs Chromium: apt-get install chromium")
        running = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def page_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report") / "run"
    return report.build(leave(folder, make_records(), None, make_lag(), make_metrics())).as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_plot_is_drawn_and_nothing_is_asked_of_the_network(
    browser: Any, page_url: str, scheme: str
) -> None:
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    page.goto(page_url)
    plots = page.locator(".plot")
    page.wait_for_function("document.querySelectorAll('.plot .main-svg').length > 0")
    assert page.locator(".plot.js-plotly-plot").count() == plots.count() > 8
    assert wrong == []
    assert [one for one in asked if not one.startswith(("data:", "blob:", page_url))] == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(251, 250, 248)", "dark": "rgb(20, 23, 27)"}[scheme]
    context.close()


def test_on_a_phone_nothing_is_wider_than_the_screen(browser: Any, page_url: str) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740})
    page = context.new_page()
    page.goto(page_url)
    page.wait_for_function("document.querySelectorAll('.plot .main-svg').length > 0")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()


def test_plots_over_time_zoom_together(browser: Any, page_url: str) -> None:
    page = browser.new_page()
    page.goto(page_url)
    page.wait_for_function("document.querySelectorAll('.plot .main-svg').length > 0")
    page.evaluate("Plotly.relayout('plot-rates', {'xaxis.range[0]': 5, 'xaxis.range[1]': 9})")
    page.wait_for_function(
        "document.getElementById('plot-in-flight').layout.xaxis.range.join() === '5,9'"
    )
    page.close()
