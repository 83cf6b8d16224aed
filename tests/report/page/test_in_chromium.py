"""The page in a real browser: nothing fails, filters, paging and keys work, all of it can be read in light and dark.

Needs playwright (extra [page-test]) and a Chromium of the system's: make test-page.
"""

from __future__ import annotations

import pytest

from soup.report.page.document import run_document
from soup.report.page.render import write_report
from tests.helpers.chromium import CONTRAST, IN_CHROMIUM
from tests.helpers.simulated_runs import SimulatedRun

pytestmark = IN_CHROMIUM

NEXT = """(drawing) => {
  const all = [...document.querySelectorAll("[role=img], table")];
  return all[all.indexOf(drawing) + 1].tagName;
}"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    SimulatedRun(folder / "ckpts.soup", ingredients=5, benchmarks=3, questions=200).search()
    write_report(run_document(folder / "ckpts.soup"), folder / "report.html")
    return folder / "report.html"


@pytest.fixture
def open_page(browser, page_file):
    contexts = []

    def open_with(**options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.faults = []
        page.on("console", lambda message: page.faults.append(message.text))
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on(
            "request", lambda request: request.url.startswith(("file:", "data:")) or page.faults.append(request.url)
        )
        page.goto(page_file.as_uri())
        return page

    yield open_with
    for context in contexts:
        context.close()


def test_nothing_fails_and_nothing_is_asked_for(open_page):
    page = open_page()
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.faults == []
    assert page.title() == "ckpts.soup: soup report"  # and not what a question's text would make of it
    assert page.locator("#question-list li").count() == 12


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_its_background(open_page, scheme):
    page = open_page(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate(CONTRAST) == []
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(255, 255, 255)") is (scheme == "light")


def test_a_phone_scrolls_tables_and_not_the_page(open_page):
    page = open_page(viewport={"width": 360, "height": 740})
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_every_drawing_is_followed_by_a_table(open_page):
    drawings = open_page().locator("main [role=img]")
    assert drawings.count() >= 2
    for index in range(drawings.count()):
        assert drawings.nth(index).evaluate(NEXT) == "TABLE"


def test_filters_and_paging_show_what_they_say(open_page):
    page = open_page()
    items, status = page.locator("#question-list li"), page.locator("#question-status")
    total = int(status.text_content().split(" of ")[1].split()[0])
    page.select_option("select[name=kind]", "lost")
    lost = int(status.text_content().split()[0])
    assert items.evaluate_all("(all) => all.every((each) => each.className === 'lost')")
    page.select_option("select[name=kind]", "gained")
    assert int(status.text_content().split()[0]) + lost == total
    page.select_option("select[name=kind]", "")
    first = items.first.text_content()
    page.click("#page-after")
    assert "page 2 of" in status.text_content()
    assert items.first.text_content() != first
    page.select_option("select[name=benchmark]", "pictures:b1")
    assert "page 1 of" in status.text_content()
    assert items.evaluate_all("(all) => all.every((each) => each.textContent.includes('pictures:b1'))")
    page.select_option("select[name=part]", label="questions that only report")
    assert items.evaluate_all("(all) => all.every((each) => each.textContent.includes('questions that only report'))")
    page.fill("input[name=text]", "no question says this")
    assert status.text_content().startswith("0 of")
    assert page.is_disabled("#page-after")


def test_all_of_it_works_by_keys_alone(open_page):
    page = open_page()
    page.focus("select[name=kind]")
    page.keyboard.press("ArrowDown")
    assert page.input_value("select[name=kind]") == "gained"
    page.focus("#page-after")
    page.keyboard.press("Enter")
    assert "page 2 of" in page.locator("#question-status").text_content()
    page.locator("summary").last.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").last.evaluate("(each) => each.open")
    page.locator("[role=region]").first.focus()  # a table that scrolls takes the arrow keys
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Overalls"


def test_print_opens_what_is_folded_and_leaves_controls_out(open_page):
    page = open_page(color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("[...document.querySelectorAll('details')].every((each) => each.open)")
    assert not page.is_visible("form")
    assert not page.is_visible("nav")
    page.set_viewport_size({"width": 1030, "height": 700})  # of A4 across, less its margins
    assert page.evaluate("document.documentElement.scrollWidth") == 1030
