"""``report.html`` of real runs in a real browser: headless Chromium through its own driver, without any network."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait
from tiny_runs import Cli, Train

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LONGEST_LOAD = 120  # seconds, on a machine that has other work
WIDTHS = {"desktop": 1280, "phone": 390}
PAPER = {"width": 1040, "height": 720, "deviceScaleFactor": 1, "mobile": False}  # A4 across, in pixels
SECTIONS = ("paper-tables", "runs", "against-loops", "histograms", "pictures", "losses")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, train_tiny: Train, cli: Cli) -> Path:
    """The page of two runs with three loops and one loop; every detection is drawn, since they hardly learnt."""
    folder = tmp_path_factory.mktemp("report")
    runs = [train_tiny(folder=folder / "three"), train_tiny("recursion=mask_rcnn", folder=folder / "one")]
    names = ",".join(map(str, runs))
    cli("report", f"runs=[{names}]", "table=table3", f"output_dir={folder}")
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    program, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if program is None or driver is None:
        missing = "Chromium and its driver are needed: on Debian, the packages chromium and chromium-driver"
        if "R3CNN_DATA" in os.environ:  # as with the data sets: whoever names a folder wants all tests to run
            pytest.fail(missing)
        pytest.skip(missing)
    options = ChromeOptions()
    options.binary_location = program
    options.page_load_strategy = "none"  # `load` waits, for what it names
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in FLAGS:
        options.add_argument(flag)
    chrome = Chrome(options, Service(driver))
    yield chrome
    chrome.quit()


@pytest.fixture(params=list(WIDTHS))
def page(browser: Chrome, report: Path, request: pytest.FixtureRequest) -> Chrome:
    """The page at both widths, freshly loaded; earlier log lines are dropped."""
    size = {"width": WIDTHS[request.param], "height": 900, "deviceScaleFactor": 1, "mobile": request.param == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    load(browser, "about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    load(browser, report.as_uri())
    return browser


def load(browser: Chrome, address: str) -> None:
    """Goes to a page and waits for all of it.

    The driver alone goes by events, of which some come late; in CI it returned with a part of the page.
    """
    browser.get(address)
    script = "return document.URL === arguments[0] && document.readyState === 'complete'"
    WebDriverWait(browser, LONGEST_LOAD, poll_frequency=0.05).until(lambda one: one.execute_script(script, address))


def column(page: Chrome, heading: WebElement) -> list[str]:
    """Texts of the column below a heading."""
    script = (
        "const table = arguments[0].closest('table'), at = arguments[0].cellIndex;"
        "return [...table.tBodies[0].rows].map(row => row.cells[at].textContent.trim())"
    )
    return page.execute_script(script, heading)


def test_every_part_of_the_report_is_there(page: Chrome) -> None:
    assert [page.find_element(By.ID, name).is_displayed() for name in SECTIONS] == [True] * len(SECTIONS)
    assert len(page.find_elements(By.CSS_SELECTOR, "#all-runs tbody tr")) == 2
    assert len(page.find_elements(By.CSS_SELECTOR, "#against-loops svg.plot")) == 4
    assert len(page.find_elements(By.CSS_SELECTOR, "#histograms svg.plot")) == 4
    assert len(page.find_elements(By.CSS_SELECTOR, "#losses svg.plot")) >= 10
    assert len(page.find_elements(By.CSS_SELECTOR, "#paper-tables td.published")) >= 10
    texts = page.find_elements(By.CSS_SELECTOR, "#against-loops svg.plot text")
    assert "evaluation loop" in {text.text for text in texts}


def test_pictures_are_decoded_and_have_their_size(page: Chrome) -> None:
    script = "return Promise.all([...document.images].map(image => image.decode().then(() => image.naturalWidth)))"
    widths = page.execute_script(script)
    assert len(widths) == 1 * (3 + 1)  # images times loops of both runs
    assert min(widths) > 100


def test_nothing_is_fetched_and_the_console_stays_empty(page: Chrome) -> None:
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert page.current_url in asked
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert [url for url in asked if url.startswith("file:")] == [page.current_url]
    assert page.get_log("browser") == []


def test_the_page_is_never_wider_than_the_screen(page: Chrome) -> None:
    inner, content = page.execute_script("return [window.innerWidth, document.documentElement.scrollWidth]")
    assert content <= inner in WIDTHS.values()
    wide = page.execute_script(
        "const table = document.getElementById('all-runs'); return [table.offsetWidth, table.parentElement.offsetWidth]"
    )
    assert wide[0] > wide[1]  # it scrolls within itself


def test_a_heading_sorts_its_table_both_ways_and_says_so(page: Chrome) -> None:
    table = page.find_element(By.CSS_SELECTOR, "#paper-tables table")
    heading = next(one for one in table.find_elements(By.CSS_SELECTOR, "th.published") if "BAP" in one.text)
    button = heading.find_element(By.TAG_NAME, "button")
    before = column(page, heading)
    button.send_keys(Keys.ENTER)
    rising = [float(text.rstrip("abc,")) for text in column(page, heading)]
    assert heading.get_attribute("aria-sort") == "ascending"
    assert rising == sorted(rising)
    assert len(set(rising)) > 1
    button.send_keys(Keys.SPACE)
    falling = [float(text.rstrip("abc,")) for text in column(page, heading)]
    assert heading.get_attribute("aria-sort") == "descending"
    assert falling == rising[::-1] or sorted(falling, reverse=True) == falling
    assert sorted(column(page, heading)) == sorted(before)
    others = [one.get_attribute("aria-sort") for one in table.find_elements(By.CSS_SELECTOR, "th[aria-sort]")]
    assert others.count("none") == len(others) - 1


def test_rows_that_were_not_run_stay_at_the_end_whichever_way_a_column_is_sorted(page: Chrome) -> None:
    table = page.find_element(By.CSS_SELECTOR, "#paper-tables table")
    heading = next(one for one in table.find_elements(By.CSS_SELECTOR, "th.measured") if "seeds" in one.text)
    for _ in range(2):
        heading.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
        assert column(page, heading)[-1] == "not run"


def test_a_long_table_shows_50_rows_until_all_are_asked_for(
    browser: Chrome, report: Path, cli: Cli, tmp_path: Path
) -> None:
    for number in range(51):
        shutil.copytree(report.parent / "three", tmp_path / str(number), ignore=shutil.ignore_patterns("checkpoints"))
    cli("report", f"search=[{tmp_path}]", "table=table3", "significance.resamples=0", f"output_dir={tmp_path}")
    load(browser, (tmp_path / "report.html").as_uri())

    def shown() -> int:
        return sum(row.is_displayed() for row in browser.find_elements(By.CSS_SELECTOR, "#all-runs tbody tr"))

    button = browser.find_element(By.CSS_SELECTOR, "button.more")
    assert (shown(), button.text) == (50, "Show all 51 rows")
    button.send_keys(Keys.ENTER)
    assert (shown(), browser.find_elements(By.CSS_SELECTOR, "button.more")) == (51, [])


def test_the_slider_goes_through_the_loops_and_changes_the_picture(page: Chrome) -> None:
    figure = page.find_element(By.CSS_SELECTOR, "figure.picture:has(input)")
    slider, shown = figure.find_element(By.TAG_NAME, "input"), []
    for loop in (1, 2, 3):
        if loop > 1:
            slider.send_keys(Keys.ARROW_RIGHT)
        visible = [one for one in figure.find_elements(By.CSS_SELECTOR, "img") if one.is_displayed()]
        assert len(visible) == 1
        shown.append(visible[0].get_attribute("src"))
        assert figure.find_element(By.CSS_SELECTOR, ".frame.current .text").text == f"loop {loop} of 3"
        assert slider.get_attribute("aria-valuetext") == f"loop {loop} of 3"
    assert len(set(shown)) == 3
    slider.send_keys(Keys.ARROW_RIGHT)  # beyond the last loop nothing happens
    assert figure.find_element(By.TAG_NAME, "output").text == "3 of 3"
    slider.send_keys(Keys.HOME)
    assert figure.find_element(By.CSS_SELECTOR, ".frame.current img").get_attribute("src") == shown[0]


def test_a_run_of_one_loop_has_no_slider(page: Chrome) -> None:
    figures = page.find_elements(By.CSS_SELECTOR, "figure.picture")
    counts = {
        len(figure.find_elements(By.TAG_NAME, "img")): len(figure.find_elements(By.TAG_NAME, "input"))
        for figure in figures
    }
    assert counts == {3: 1, 1: 0}


def test_measured_and_published_cells_look_different(page: Chrome) -> None:
    script = (
        "return ['measured', 'published'].map(kind => { const style = getComputedStyle("
        "document.querySelector(`#paper-tables td.${kind}`)); return [style.fontStyle, style.backgroundColor] })"
    )
    measured, published = page.execute_script(script)
    assert measured != published
    assert published[0] == "italic"


def test_dark_surroundings_turn_page_and_diagrams(page: Chrome) -> None:
    script = (
        "return [getComputedStyle(document.body).backgroundColor,"
        " getComputedStyle(document.querySelector('svg.plot text')).fill]"
    )
    light = page.execute_script(script)
    scheme = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
    dark = page.execute_script(script)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert light[0] != dark[0]
    assert light[1] != dark[1]


def test_a_print_shows_every_loop_and_whole_tables(page: Chrome) -> None:
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PAPER)
    hidden = [one for one in page.find_elements(By.CSS_SELECTOR, "figure.picture img") if not one.is_displayed()]
    inner, content = page.execute_script("return [window.innerWidth, document.documentElement.scrollWidth]")
    sliders = page.find_elements(By.CSS_SELECTOR, "figure.picture input")
    is_shown = [slider.is_displayed() for slider in sliders]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert hidden == []
    assert content <= inner
    assert is_shown == [False] * len(sliders)
    assert sliders
