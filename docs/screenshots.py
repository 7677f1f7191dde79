"""The screenshots of docs/report.md, from the report of a run.

    python docs/screenshots.py reports/latest

Needs the extra `test` and a Chromium: that of SUPERWEIGHT_CHROMIUM, the system's, or Playwright's own. Images go to
docs/images/.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

IMAGES = Path(__file__).parent / "images"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def main() -> None:
    """Take every screenshot again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run directory with a report.html")
    parser.add_argument("--cell", default="", help="MODEL/RECIPE to show in detail; default the first candidate")
    options = parser.parse_args()
    address = (options.run / "report.html").resolve().as_uri()
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        path = os.environ.get("SUPERWEIGHT_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        desktop = browser.new_page(viewport={"width": 1280, "height": 860})
        desktop.goto(address)
        _keep(desktop, "report-first-screen")
        desktop.locator("details.behind").evaluate_all("all => { for (const one of all) one.open = true; }")
        for name in desktop.locator("figure.figure").evaluate_all("figures => figures.map(one => one.dataset.name)"):
            figure = desktop.locator(f"figure[data-name='{name}']")
            _taken(figure.screenshot(), f"picture-{name.split('instruct-')[-1]}")
        _cell(desktop, options.cell)
        phone = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
        phone.goto(address)
        _keep(phone, "report-phone-dark")
        browser.close()


def _cell(page: Page, wanted: str) -> None:
    first = page.locator("details.cell[data-role=candidate] .body").first
    name = wanted or first.get_attribute("id")
    page.evaluate("name => { location.hash = name; }", name)
    expect(page.locator("details.cell[open]")).to_have_count(1)
    flips = page.locator("details.cell[open] details.flips summary")
    if flips.count():
        flips.first.click()
    page.evaluate("document.querySelector('details.cell[open]').scrollIntoView()")
    _keep(page, "report-cell")


def _keep(page: Page, name: str) -> None:
    _taken(page.screenshot(), name)


def _taken(png: bytes, name: str) -> None:
    path = IMAGES / f"{name}.png"
    path.write_bytes(png)
    print(path, f"{path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
