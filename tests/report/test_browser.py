"""The pages in a real browser, made from the evidence of a gate on the embedded model."""

import os
import re
import shutil
import tarfile
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from playwright.sync_api import Error, expect, sync_playwright
from test_page import big, hostile, small

from superweight.report import read_document, render
from superweight.report.page import render_html
from superweight.report.store_index import keep_report, write_index
from superweight.runs.history import append_run
from superweight.runs.read import snapshots_of

DATA = Path(__file__).parent / "data" / "embedded.tar.xz"
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
SERIOUS = ("serious", "critical")

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def browser():
    """Chromium: that of the environment variable, of the system, or Playwright's own."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    path = os.environ.get("SUPERWEIGHT_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    with sync_playwright() as started:
        try:
            opened = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except Error as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(
                f"no browser: install Chromium, or `playwright install chromium` ({error.message.splitlines()[0]})"
            )
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A run directory of the nightly tier on the embedded model, its report rendered now, with a history."""
    directory = tmp_path_factory.mktemp("real")
    with tarfile.open(DATA) as archive:
        archive.extractall(directory, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # from 3.11.4
    run, store = directory / "run", directory / "store"
    document = read_document(run)
    for day in (10, 11, 12):
        earlier = document.model_copy(deep=True)
        earlier.run.started = f"2026-11-{day}T01:00:00+00:00"
        append_run(store, earlier, snapshots_of(earlier), {})
    render(run, document, store=store)
    return run


class Opened:
    """A page with whatever it complained of and asked for."""

    def __init__(self, browser, path, viewport=DESKTOP, scheme="light", scripts=True):
        self.context = browser.new_context(
            viewport=viewport, color_scheme=scheme, accept_downloads=True, java_script_enabled=scripts
        )
        self.page = self.context.new_page()
        self.complaints, self.requests, self.failures = [], [], {}
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfailed", lambda request: self.failures.update({request.url: request.failure}))
        self.page.goto(path if isinstance(path, str) else path.as_uri())

    def violations(self):
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        return [
            (one["id"], one["nodes"][0]["html"][:200], len(one["nodes"])) for one in found if one["impact"] in SERIOUS
        ]


@pytest.fixture
def open_page(browser):
    opened = []

    def open_(path, **more):
        opened.append(Opened(browser, path, **more))
        return opened[-1]

    yield open_
    for one in opened:
        one.context.close()


def written(tmp_path, html):
    path = tmp_path / "report.html"
    path.write_bytes(html.encode(errors="backslashreplace"))
    return path


@pytest.mark.parametrize(("viewport", "scheme"), [(PHONE, "dark"), (DESKTOP, "light")], ids=["phone", "desktop"])
def test_a_real_report_is_quiet_and_accessible(real, open_page, viewport, scheme):
    opened = open_page(real / "report.html", viewport=viewport, scheme=scheme)
    page = opened.page
    for recipe in ("baseline", "w8a8-channel-token-handled", "prune-super-weights", "rtn-int4-g64"):  # one a role
        page.locator(f"details.cell[data-recipe='{recipe}']").evaluate(
            "cell => { for (const one of [cell, ...cell.querySelectorAll('details')]) one.open = true; }"
        )
    page.locator("details:not(details.cell)").evaluate_all(
        "all => { for (const one of all) one.open ||= !one.closest('.cell'); }"
    )
    assert opened.violations() == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert len(opened.requests) <= 2  # itself and its empty icon


def test_the_first_screen_has_verdict_matrix_and_commit(real, open_page):
    page = open_page(real / "report.html").page
    for selector in ("h1", ".tally li", "table.matrix thead", ".eyebrow code"):
        box = page.locator(selector).first.bounding_box()
        assert box["y"] + box["height"] < DESKTOP["height"], selector


def test_filters_work_by_keyboard(real, open_page):
    page = open_page(real / "report.html").page
    every = page.locator("#figures tbody tr").count()
    page.keyboard.press("Tab")  # the link that skips to the figures
    page.keyboard.press("Enter")
    page.locator("input[name=q]").focus()
    page.keyboard.type("clip candidate")
    shown = page.locator("#figures tbody tr:visible")
    assert 0 < shown.count() < every
    assert page.locator("details.cell:visible").count() == shown.count()
    assert page.locator("#matching").inner_text() == f"{shown.count()} of {every} cells"
    page.locator("input[name=q]").fill("")
    page.locator("select[name=verdict]").focus()
    page.keyboard.type("REG")
    assert set(page.locator("#figures tbody tr:visible").evaluate_all("r => r.map(x => x.dataset.verdict)")) == {
        "REGRESSION"
    }
    page.locator("select[name=gate]").select_option("super-weights")
    assert "REGRESSION" not in page.locator("#figures tbody tr:visible").evaluate_all(
        "r => r.map(x => x.dataset.recipe)"
    )
    page.locator("button[type=reset]").press("Enter")
    expect(page.locator("#figures tr.outside")).to_have_count(0)


def test_columns_sort_as_numbers_and_back(real, open_page):
    page = open_page(real / "report.html").page
    heading = page.locator("#figures th", has_text="bits").first
    column = heading.evaluate("h => h.cellIndex")
    bits = f"rows => rows.map(row => row.cells[{column}].textContent).filter(Boolean).map(Number)"
    for order, sign in (("ascending", 1), ("descending", -1)):
        heading.locator("button").press("Enter")
        assert heading.get_attribute("aria-sort") == order
        found = page.locator("#figures tbody tr").evaluate_all(bits)
        assert [sign * value for value in found] == sorted(sign * value for value in found)


def test_a_link_to_a_cell_opens_it_at_once_and_from_the_matrix(real, open_page):
    page = open_page(f"{(real / 'report.html').as_uri()}#smollm2-135m-instruct/prune-super-weights").page
    cell = page.locator("details.cell[data-recipe='prune-super-weights']")
    assert cell.get_attribute("open") is not None
    assert cell.locator("text=lost").first.is_visible()
    link = page.locator("table.matrix a", has=page.locator("text=pass")).nth(1)
    name = link.get_attribute("href")
    link.press("Enter")
    expect(page.locator(f"details.cell[open] [id='{name[1:]}']")).to_have_count(1)
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    mark = page.locator("svg [data-cell]").first
    page.evaluate("document.querySelector('#close').click()")
    mark.click(force=True)
    expect(page.locator("details.cell[open]")).to_have_count(1)


def test_pictures_are_saved_as_they_are_seen(real, open_page):
    page = open_page(real / "report.html", scheme="dark").page
    figure = page.locator("figure.figure").first
    title = figure.locator("h3").inner_text()

    def saved(kind):
        with page.expect_download() as download:
            figure.locator(f"[data-save={kind}]").press("Enter")
        assert download.value.suggested_filename.endswith(f".{kind}")
        return Path(download.value.path()).read_bytes()

    svg = saved("svg").decode()
    root = ET.fromstring(svg)
    assert "var(" not in svg
    assert title.split()[0] in "".join(root.itertext())
    assert saved("png").startswith(b"\x89PNG")
    rows = saved("csv").decode().splitlines()
    assert len(rows) == figure.locator("table tr").count()


def test_changed_answers_are_found_by_words_and_direction(real, open_page):
    page = open_page(real / "report.html").page
    page.evaluate("() => { for (const one of document.querySelectorAll('details')) one.open = true; }")
    block = page.locator("details.flips").first
    every = block.locator("tbody tr").count()
    block.locator("select").select_option("right → wrong")
    lost = block.locator("tbody tr:visible")
    assert 0 < lost.count() <= every
    assert set(lost.evaluate_all("rows => rows.map(row => row.cells[1].textContent)")) == {"right → wrong"}
    block.locator("input").fill("no such words in any question")
    assert lost.count() == 0


def test_the_theme_is_the_readers(real, open_page):
    page = open_page(real / "report.html").page
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.locator("#theme").press("Enter")
    assert page.evaluate(colour) == light
    page.locator("#theme").press("Enter")
    assert page.evaluate(colour) != light
    assert page.locator("#theme").inner_text() == "Theme: dark"


def test_without_scripts_all_is_there_to_read(real, open_page):
    page = open_page(real / "report.html", scripts=False).page
    assert page.locator("svg.picture").first.is_visible()
    assert page.locator("#filters").is_hidden()
    page.locator("details.cell summary").first.click()
    assert page.locator("table.gates").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_prints_dark_on_light_and_nothing_is_cut_off(real, open_page, scheme):
    page = open_page(real / "report.html", scheme=scheme, viewport={"width": 1030, "height": 730}).page  # A4 landscape
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#filters").is_hidden()
    assert page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--bg').trim()") == "#ffffff"
    assert page.locator("details.cell[data-role=candidate] table.gates").first.is_visible()
    assert page.locator("details.cell[data-role=reference]").first.is_hidden()
    assert page.evaluate("document.querySelector('#figures').getBoundingClientRect().right <= innerWidth")
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")


def test_hostile_names_do_nothing(open_page, tmp_path):
    opened = open_page(written(tmp_path, render_html(hostile())))
    opened.page.evaluate("() => { for (const one of document.querySelectorAll('details')) one.open = true; }")
    opened.page.locator("input[name=q]").fill("</script>")
    assert opened.complaints == []
    assert opened.page.locator("img, iframe").count() == 0
    assert opened.page.locator("#figures tbody tr:visible").count() == 2


def test_an_injected_script_would_not_run(open_page, tmp_path):
    html = render_html(small()).replace(
        "</main>", "<script>alert(1)</script><img src=https://example.invalid/x></main>"
    )
    opened = open_page(written(tmp_path, html))
    assert opened.failures == {"https://example.invalid/x": "csp"}
    assert opened.complaints
    assert all("Content Security Policy" in complaint for complaint in opened.complaints)


def test_a_large_run_can_be_searched(open_page, tmp_path):
    opened = open_page(written(tmp_path, render_html(big())))
    assert opened.page.locator("#figures tbody tr").count() == 800
    opened.page.locator("input[name=q]").fill("model-07 recipe-03")
    assert opened.page.locator("#figures tbody tr:visible").count() == 1
    assert opened.complaints == []


def test_the_index_leads_to_each_report(real, open_page, tmp_path):
    document = read_document(real)
    for day in (1, 2):
        document.run.started = f"2026-11-0{day}T01:00:00+00:00"
        entry = append_run(tmp_path, document, snapshots_of(document), {})
    keep_report(tmp_path, entry.id, real)
    opened = open_page(write_index(tmp_path), viewport=PHONE)
    assert opened.violations() == []
    assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert opened.page.locator("svg.picture").count() == 1
    assert opened.page.locator("tbody tr").count() == 2
    opened.page.locator("tbody a").click()
    assert re.match("✓|✗|\\?|!", opened.page.locator("h1").inner_text())
    assert opened.complaints == []
