"""The report: one file, no network, nothing of a prompt run as code."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from efface.concept import Erasure
from efface.evaluate import evaluate, read
from efface.report import claims, estimate, write
from efface.report.plot import Point, scatter
from efface.suites import build, world
from judging_fixtures import Planted, edit_of, world_model, write_world

EVIL = '<script>window.hacked = 1</script> a cat & a "dog"'


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two evaluations, of which one has a prompt that wants to be a script."""
    place, model = tmp_path_factory.mktemp("evaluations"), world_model()
    known = world.load(write_world(place))
    out = []
    for target in ("cat", "apple"):
        suite = build("glyphs-objects", Erasure((target,)), known, per_group=4)
        if target == "cat":
            suite = replace(suite, rows=(replace(suite.rows[0], prompt=EVIL), *suite.rows[1:]))
        edit = edit_of(model, place / f"{target}.safetensors", (target,))
        judges = [Planted(), Planted(name="object-second")]
        evaluate(model, edit, suite, judges, place / target)
        out.append(place / target)
    return out


@pytest.fixture(scope="module")
def page(folders: list[Path]) -> Path:
    return write(folders, folders[0].parent / "report.html")


class Reader(HTMLParser):
    """Checks that tags are balanced, and remembers them."""

    VOID = ("meta", "img", "br", "line", "circle")

    def __init__(self) -> None:
        HTMLParser.__init__(self)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module")
def parsed(page: Path) -> Reader:
    reader = Reader()
    reader.feed(page.read_text())
    assert reader.open == []
    return reader


def test_nothing_is_fetched_from_anywhere(parsed: Reader, page: Path) -> None:
    links = [a.get("src") or a.get("href") for _, a in parsed.tags if "src" in a or "href" in a]
    assert links and all(link and link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert not re.search(r"@import|url\(|fetch\(", page.read_text())


def test_prompts_are_text(parsed: Reader) -> None:
    assert [tag for tag, _ in parsed.tags].count("script") == 1
    assert EVIL in parsed.text


def test_headlines_intervals_alarms_and_provenance_are_there(parsed: Reader, folders: list[Path]) -> None:
    record = read(folders[0])
    for m in record.heads():
        assert estimate(m.edited, m.metric) in parsed.text and estimate(m.base, m.metric) in parsed.text
    for alarm in record.alarms:
        assert alarm.name in parsed.text
    assert record.drawing.edit in parsed.text and record.rule in parsed.text
    assert "shows mechanisms, not Stable Diffusion's numbers" in parsed.text
    assert len([1 for _, a in parsed.tags if a.get("class") == "pair"]) >= 2 * 4 * 5


def test_several_erasures_make_a_claim_with_a_clustered_interval(folders: list[Path]) -> None:
    found = claims([read(f) for f in folders])
    assert found and all(c.erasures == 2 and c.method == "ESD" and c.low <= c.value <= c.high for c in found)
    assert not claims([read(folders[0])])


def test_folders_without_an_evaluation_and_damaged_pictures_are_refused(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        write([], tmp_path / "r.html")
    with pytest.raises(FileNotFoundError):
        write([tmp_path], tmp_path / "r.html")
    copy = Path(shutil.copytree(folders[0], tmp_path / "copy"))
    for file in (copy / "images").rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(ValueError, match="run the evaluation again"):
        write([copy], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_the_plot_escapes_its_labels_and_keeps_points_inside() -> None:
    svg = str(scatter([Point("<b>", "edit", (1, 0.9, 1), (0, 0, 0.1))], "x", "y"))
    assert "<b>" not in svg and "&lt;b&gt;" in svg
    assert 'cx="446"' in svg and 'cy="276"' in svg


@pytest.mark.browser
def test_in_a_browser(page: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine: the report was not tried in a browser")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        problems: list[str] = []
        tab.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        tab.on("pageerror", lambda e: problems.append(str(e)))
        tab.goto(page.as_uri())
        assert tab.evaluate("window.hacked") is None
        first = tab.locator("article").first
        everything = first.locator("figure:visible").count()
        first.locator("select").first.select_option("target")
        assert 0 < first.locator("figure:visible").count() < everything
        first.locator(".pair:visible").first.focus()
        tab.keyboard.press("Enter")
        assert tab.locator("dialog").is_visible() and tab.locator("dialog img").count() == 2
        tab.keyboard.press("Escape")
        assert not tab.locator("dialog").is_visible()
        browser.close()
        assert problems == []
