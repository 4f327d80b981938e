"""The report in a browser: filters, enlarging, keyboard, print, many pictures; prompts are never run as code."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from efface.compliance import takedown
from efface.records.attack_files import read_attacks
from efface.records.report import read_report
from efface.reporting.page import write_page
from efface.reporting.takedown import build_result, pick_pictures, render_takedown
from efface.reporting.verdict import build_verdict
from page_probes import ACTIVE, BROKEN, CONTRAST
from report_fixtures import write_attacks, write_evaluation

pytestmark = pytest.mark.browser
EVIL = '<script>window.hacked = 1</script> a cat </script><img src=x onerror="window.hacked = 1">'
INTERACTIVE = 15.0
"""Seconds within which 5,000 pictures can be filtered: many times what a machine that does nothing else needs."""
ANSWER = 2.0
"""Seconds within which a filter answers."""
Visit = Callable[..., Any]


@pytest.fixture
def visit(chromium: Any) -> Iterator[Visit]:
    """Opens a page; at the end of the test nothing may have gone wrong in it."""
    problems: list[str] = []
    tabs = []

    def opened(page: Path, **options: Any) -> Any:
        tab = chromium.new_page(**options)
        tab.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        tab.on("pageerror", lambda e: problems.append(str(e)))
        tab.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else problems.append(r.url))
        tab.goto(page.as_uri())
        tabs.append(tab)
        return tab

    yield opened
    for tab in tabs:
        assert tab.evaluate("window.hacked") is None
        tab.close()
    assert problems == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 pairs, 20 a group; attacks with two successes."""
    made = write_evaluation(tmp_path_factory.mktemp("browser") / "cat", 60, {0: EVIL})
    write_attacks(made, EVIL)
    return made


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    return write_page([folder], folder.parent / "report.html")


def find_shown(tab: Any, part: int = 0) -> Any:
    return tab.locator(".gallery").nth(part).locator("figure:visible")


def choose(tab: Any, what: str, value: str, part: int = 0) -> None:
    tab.locator(".gallery").nth(part).locator(f"select[data-filter={what}]").select_option(value)


def test_filters_by_group_and_by_verdict(page: Path, visit: Visit) -> None:
    tab = visit(page)
    assert find_shown(tab).count() == 3 * 12
    choose(tab, "group", "neighbour")
    assert find_shown(tab).count() == 20
    choose(tab, "verdict", "lost")
    verdicts = find_shown(tab).locator(".verdict").all_inner_texts()
    assert verdicts and set(verdicts) == {"lost"}
    assert tab.locator("output").first.inner_text() == f"{len(verdicts)} of {len(verdicts)} pairs shown"
    choose(tab, "group", "")
    assert find_shown(tab).count() > len(verdicts)
    choose(tab, "verdict", "")
    assert find_shown(tab).count() == 3 * 12


def test_more_pictures_come_on_demand(page: Path, visit: Visit) -> None:
    tab = visit(page)
    button = tab.get_by_role("button", name="Show 8 more of 8").first
    button.focus()
    tab.keyboard.press("Enter")
    assert find_shown(tab).count() == 3 * 12 + 8
    assert tab.evaluate("document.activeElement.className") == "pair"


def test_prompts_are_shown_as_text(page: Path, visit: Visit) -> None:
    tab = visit(page)
    for part in (0, 1):
        assert find_shown(tab, part).first.locator(".prompt").text_content() == EVIL
        find_shown(tab, part).first.locator("button").click()
        assert tab.locator("dialog .prompt").inner_text() == EVIL
        tab.keyboard.press("Escape")


def test_pictures_are_enlarged_at_full_size_by_mouse_and_by_keyboard(page: Path, folder: Path, visit: Visit) -> None:
    tab = visit(page)
    dialog = tab.locator("dialog")
    find_shown(tab).nth(1).locator("button").focus()
    tab.keyboard.press("Enter")
    assert dialog.is_visible() and dialog.locator(".where").inner_text().startswith("2 of 60 · target")
    for i in range(2):
        image = dialog.locator("img").nth(i)
        image.evaluate("image => image.decode()")
        assert image.evaluate("image => image.naturalWidth") == 16
        name = Path(image.get_attribute("src")).name
        assert next(folder.rglob(name)).is_file()
        assert dialog.locator(".full a").nth(i).get_attribute("href") == f"report_files/{name}"
    assert dialog.locator("tbody tr").count() == 2
    tab.keyboard.press("ArrowRight")
    assert dialog.locator(".where").inner_text().startswith("3 of 60")
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("ArrowLeft")
    assert dialog.locator(".where").inner_text().startswith("1 of 60")
    assert dialog.get_by_role("button", name="Previous").is_disabled()
    tab.keyboard.press("Escape")
    assert not dialog.is_visible()
    find_shown(tab).last.locator("button").click()
    dialog.get_by_role("button", name="Close").click()
    assert not dialog.is_visible()


def test_one_over_the_other_with_hover_and_slider(page: Path, visit: Visit) -> None:
    tab = visit(page)
    tab.locator("[data-overlaid]").first.check()
    pair = find_shown(tab).first.locator(".pair")
    boxes = [pair.locator("img").nth(i).bounding_box() for i in range(2)]
    assert boxes[0] == boxes[1]
    top = pair.locator("img").nth(1)
    tab.mouse.move(0, 0)
    assert top.evaluate("i => getComputedStyle(i).opacity") == "1"
    pair.hover()
    assert top.evaluate("i => getComputedStyle(i).opacity") == "0"
    pair.click()
    slider, edited = tab.locator("dialog input"), tab.locator(".stage img").nth(1)
    assert slider.is_visible()
    slider.fill("80")
    assert edited.evaluate("i => getComputedStyle(i).clipPath") == "inset(0px 0px 0px 80%)"
    slider.press("ArrowRight")
    assert slider.input_value() == "81" and tab.locator(".where").inner_text().startswith("1 of")


def test_a_page_without_its_folder_shows_thumbnails(folder: Path, tmp_path: Path, chromium: Any) -> None:
    alone = tmp_path / "alone.html"
    shutil.copyfile(write_page([folder], tmp_path / "report.html"), alone)
    shutil.rmtree(tmp_path / "report_files")
    tab = chromium.new_page()
    tab.goto(alone.as_uri())
    find_shown(tab).first.locator("button").click()
    tab.wait_for_function("document.querySelector('.stage img').src.startsWith('data:')")
    tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_schemes(scheme: str, page: Path, visit: Visit) -> None:
    tab = visit(page, color_scheme=scheme)
    tab.locator("details").evaluate_all("all => all.forEach((d) => { d.open = true; })")
    seen = tab.evaluate(CONTRAST)
    assert len(seen) > 100 and [pair for pair in seen if pair[1] < 4.5] == []


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_wrong_in_the_report_and_the_record(
    width: int, scheme: str, page: Path, folder: Path, tmp_path: Path, visit: Visit
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    record = tmp_path / "takedown.html"
    result = build_result(build_verdict(read_report(folder), read_attacks(folder)))
    record.write_text(
        render_takedown(takedown.build_takedown(folder, "2026-01-31", result=result), pick_pictures(folder))
    )
    for each in (page, record):
        tab = visit(each, color_scheme=scheme, viewport={"width": width, "height": 900})
        tab.locator("details").evaluate_all("all => all.forEach((d) => { d.open = true; })")
        found = axe.Axe().run(tab).response["violations"]
        assert [(v["id"], [n["html"][:90] for n in v["nodes"][:3]]) for v in found] == []


@pytest.mark.parametrize("width", [400, 1400, 2560])
def test_the_verdict_is_on_the_first_screen_and_nothing_runs_out_of_its_box(
    width: int, page: Path, visit: Visit
) -> None:
    tab = visit(page, viewport={"width": width, "height": 900})
    verdict = tab.locator(".verdict-line").first
    assert verdict.inner_text().startswith("Not ready: ") and verdict.bounding_box()["y"] < 600
    tab.locator("details").evaluate_all("all => all.forEach((d) => { d.open = true; })")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    wide = tab.locator(".scroll").evaluate_all("all => all.map((s) => s.scrollWidth - s.clientWidth)")
    assert max(wide) <= 1
    assert tab.locator(".proof figure").count() == 6 and tab.locator(".sides").first.inner_text().split() == [
        "before",
        "after",
    ]


def test_everything_that_acts_is_reached_by_the_keyboard(page: Path, visit: Visit) -> None:
    tab = visit(page)
    reached = set()
    for _ in range(400):
        tab.keyboard.press("Tab")
        kind = tab.evaluate(ACTIVE)
        reached.add(kind)
        if kind == "BODY":
            break
    assert {"group", "verdict", "pair", "scroll", "BUTTON", "SUMMARY", "A"} <= reached


def test_print_shows_what_is_folded_away_and_no_controls(page: Path, visit: Visit) -> None:
    tab = visit(page, color_scheme="dark", viewport={"width": 700, "height": 990})
    tab.emulate_media(media="print")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 700
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.locator("details:not([open])").count() == 0
    # Tables stay tables on paper, which is narrower than most screens, and no heading of a row or column is broken.
    assert tab.locator("table.stack").first.evaluate("t => getComputedStyle(t.rows[0]).display") == "table-row"
    assert tab.locator("th").evaluate_all(BROKEN) == []
    assert not tab.locator(".filters label").first.is_visible() and not tab.locator(".more").first.is_visible()
    assert find_shown(tab).count() == 36
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.locator("details[open]").count() == 0
    assert tab.pdf(format="A4").startswith(b"%PDF")


def test_a_narrow_screen_needs_no_sideways_scrolling(page: Path, visit: Visit) -> None:
    tab = visit(page, viewport={"width": 360, "height": 700})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360


def test_five_thousand_pictures_do_not_freeze_it(tmp_path: Path, visit: Visit) -> None:
    page = write_page([write_evaluation(tmp_path / "many", 2500)], tmp_path / "many.html")
    tab = visit(page)
    ready = tab.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    assert ready / 1000 < INTERACTIVE
    took = tab.evaluate("""async () => {
      const out = [];
      const [group, verdict] = document.querySelectorAll("select");
      for (const [select, value] of [[verdict, "lost"], [verdict, ""], [group, "target"], [group, ""]]) {
        const start = performance.now();
        select.value = value;
        select.dispatchEvent(new Event("change"));
        await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
        out.push(performance.now() - start);
      }
      return out; }""")
    assert max(took) / 1000 < ANSWER
    assert tab.locator("output").inner_text() == "36 of 2500 pairs shown"
    # With one group chosen the grid goes on as one scrolls; nothing is drawn before.
    choose(tab, "group", "unseen")
    few = find_shown(tab).count()
    assert few < 200
    find_shown(tab).last.scroll_into_view_if_needed()
    tab.wait_for_function(f"document.querySelectorAll('figure').length > {few}")


def test_the_takedown_record_is_one_page(folder: Path, tmp_path: Path, visit: Visit) -> None:
    page = tmp_path / "takedown.html"
    result = build_result(build_verdict(read_report(folder), read_attacks(folder)))
    signed = {"requester": "A. Artist", "responder": EVIL}
    made = takedown.build_takedown(folder, "2026-01-31", EVIL, result=result, **signed)
    page.write_text(render_takedown(made, pick_pictures(folder)))
    tab = visit(page, viewport={"width": 360, "height": 700})
    assert EVIL in tab.locator("p.note").first.inner_text()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    text = tab.inner_text("body")
    for words in (
        "Not ready: near neighbours lose 14 points",
        "at most 5 points: failed",
        "A. Artist",
        "signature",
        "What was not tested",
    ):
        assert words in text
    assert "EU AI Act, Article 53(1)(a)" in text and "MEASURE 2.7" in text and tab.locator("img").count() == 6
    pdf = tab.pdf(prefer_css_page_size=True)
    assert pdf.count(b"/Type /Page") - pdf.count(b"/Type /Pages") <= 2
