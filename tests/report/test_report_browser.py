"""The report in a real browser: headless Chromium through its own driver, without network."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from ste_jax.report.page import write_report

SECTIONS = (
    *("headline", "accuracy", "bias", "data", "pairs", "yield", "training", "cost", "judgments", "origin"),
)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def _program(*names: str) -> str:
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        pytest.fail(f"no {names[0]} on the PATH: apt-get install -y chromium chromium-driver")
    return found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = _program("chromium", "chromium-browser", "google-chrome")
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(_program("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def report(finished_run, tmp_path_factory) -> Path:
    summary, (first, *rest) = finished_run
    attack = dataclasses.replace(first.judgment, text="<script>document.title='x'</script>")
    out = tmp_path_factory.mktemp("report") / "report.html"
    write_report(summary, [dataclasses.replace(first, judgment=attack), *rest], out)
    return out


def _open(browser, report, width=1200, scheme="light"):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get(report.as_uri())


def test_sections_without_console_errors(browser, report):
    _open(browser, report)
    assert browser.get_log("browser") == []
    for section in SECTIONS:
        assert browser.find_element(By.ID, section).is_displayed(), section
    drawings = browser.find_elements(By.CSS_SELECTOR, "figure svg")
    assert len(drawings) == 9
    assert all(drawing.size["width"] > 300 and drawing.size["height"] > 100 for drawing in drawings)


def test_judgment_cannot_run_a_script(browser, report):
    _open(browser, report)
    assert browser.title == "quickstart · self-taught judge"
    judgment = browser.find_element(By.CSS_SELECTOR, "details .said")
    assert not judgment.is_displayed()
    browser.find_element(By.CSS_SELECTOR, "details summary").click()
    assert judgment.is_displayed()
    assert judgment.text == "<script>document.title='x'</script>"


@pytest.mark.parametrize("width", [420, 1200])
def test_page_does_not_scroll_sideways(browser, report, width):
    _open(browser, report, width=width)
    across = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert browser.execute_script(across) == 0


def _contrast(browser, selector, css="color"):
    """Returns the WCAG contrast of an element's color against the page."""
    script = """
        const light = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number)
            .map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
        const one = light(getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]);
        const two = light(getComputedStyle(document.body).backgroundColor);
        return (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    """
    return browser.execute_script(script, selector, css)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_are_readable(browser, report, scheme):
    _open(browser, report, scheme=scheme)
    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(252, 251, 248)", "dark": "rgb(22, 21, 19)"}[scheme]
    for selector in ("body", ".lede", ".tag.good", ".tag.bad", "nav a"):
        assert _contrast(browser, selector) >= 4.5, selector
    assert _contrast(browser, "figure svg text", "fill") >= 4.5
