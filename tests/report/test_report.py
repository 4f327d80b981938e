"""The report: one file, no network, nothing of a prompt run as code; the same as data beside it."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from efface.evaluation.published import Published, Rate
from efface.records.report import read_report
from efface.records.sealed import write_sealed
from efface.reporting.data import PageData, describe_method
from efface.reporting.gallery import describe_outcome
from efface.reporting.page import write_page
from efface.reporting.wording import format_estimate, format_fact, format_number
from report_fixtures import build_share, measure, write_attacks, write_evaluation

EVIL = '<script>window.hacked = 1</script> a cat & a "dog" </script><img src=x onerror=window.hacked=1>'


def build_published() -> Published:
    """Another's results: one rate of ours, and a detector at two thresholds."""
    rates = [Rate(metric="esr1", title="gone", threshold=None, estimate=build_share(90, 100))]
    rates += [
        Rate(metric="ner", title=f"over {t}", threshold=t, estimate=build_share(n, 100))
        for t, n in ((0.3, 9), (0.6, 2))
    ]
    facts: dict[str, Any] = {"images": 100, "erased": ("church",), "kept": (), "labels": (), "notes": ("<b>old</b>",)}
    return Published(name="theirs", file="theirs.csv", sha256="9" * 64, kind="topk", rates=tuple(rates), **facts)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two evaluations; in one a prompt that wants to be a script, and attacks."""
    place = tmp_path_factory.mktemp("evaluations")
    made = [write_evaluation(place / "cat", prompts={0: EVIL}), write_evaluation(place / "apple", targets=("apple",))]
    write_attacks(made[0], EVIL)
    return made


@pytest.fixture(scope="module")
def page(folders: list[Path]) -> Path:
    return write_page(folders, folders[0].parent / "a report.html", published=[build_published()])


class Reader(HTMLParser):
    """Checks that tags are balanced, and remembers them."""

    VOID = ("meta", "img", "br", "input")

    def __init__(self) -> None:
        HTMLParser.__init__(self)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif not self.open or self.open[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def parsed(page: Path) -> Reader:
    reader = Reader()
    reader.feed(page.read_text())
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def data(parsed: Reader) -> dict[str, Any]:
    """What the page's script works on."""
    at = [a for tag, a in parsed.tags if tag == "script"].index({"type": "application/json", "id": "data"})
    return json.loads(parsed.scripts[at])


def test_nothing_is_fetched_from_anywhere_and_links_lead_to_files_beside(parsed: Reader, page: Path) -> None:
    links = [a.get("src") or a.get("href") or "" for _, a in parsed.tags if "src" in a or "href" in a]
    inner = {link[1:] for link in links if link.startswith("#")}
    assert inner <= {a.get("id") for _, a in parsed.tags}
    beside = [link for link in links if not link.startswith("#")]
    assert beside == ["a%20report_files/report.json", "a%20report_files/rows.parquet"]
    assert all((page.parent / link.replace("%20", " ")).is_file() for link in beside)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttp|https?://", page.read_text())


def test_prompts_stay_data(parsed: Reader, data: dict[str, Any], page: Path) -> None:
    scripts = [a for tag, a in parsed.tags if tag == "script"]
    assert [a.get("type") for a in scripts if "id" not in a] == [None] and len(scripts) == 3
    assert EVIL not in page.read_text() and not [a for tag, a in parsed.tags if tag == "img"]
    assert data["galleries"][0]["rows"][0][2] == EVIL
    assert data["galleries"][2]["rows"][0][2] == EVIL


def test_every_pair_has_its_two_pictures_in_the_page_and_beside_it(
    data: dict[str, Any], page: Path, folders: list[Path]
) -> None:
    lines = pq.read_table(folders[0] / "rows.parquet").to_pylist()
    by_prompt = {(line["prompt"], line["variant"]): Path(line["picture"]).name for line in lines}
    rows = data["galleries"][0]["rows"]
    assert len(rows) == 12
    for row in rows:
        for variant, number in (("base", row[4]), ("edited", row[5])):
            name = data["pictures"][number]
            assert name == by_prompt[row[2], variant]
            assert (page.parent / "a report_files" / name).read_bytes() == next(folders[0].rglob(name)).read_bytes()
    thumbnails = re.findall(r'id="thumbnails-\d+">([^<]*)</script>', page.read_text())
    assert sum(len(t.split("\n")) for t in thumbnails) == len(data["pictures"])


def test_verdicts_are_those_of_the_rows(data: dict[str, Any], folders: list[Path]) -> None:
    rows = pq.read_table(folders[0] / "rows.parquet").to_pylist()
    before = {line["id"]: line["success"] for line in rows if line["variant"] == "base"}
    shown = data["galleries"][0]
    words = {row[2]: shown["verdicts"][row[1]] for row in shown["rows"]}
    for line in rows:
        if line["variant"] == "edited":
            yes, no = ("erased", "still shown") if line["role"] == "erase" else ("kept", "lost")
            missing = line["role"] == "erase"
            if before[line["id"]] is missing and line["success"] is missing:
                yes = no = "never shown"
            expected = "not judged" if line["success"] is None else yes if line["success"] else no
            assert words[line["prompt"]] == expected
    assert {"still shown", "kept", "never shown", "not judged"} <= {*words.values()}


@pytest.mark.parametrize(
    ("role", "before", "after", "said"),
    [
        ("erase", False, True, "erased"),
        ("erase", True, True, "never shown"),
        ("erase", True, False, "still shown"),
        ("erase", None, True, "erased"),
        ("keep", True, False, "lost"),
        ("keep", False, False, "never shown"),
        ("keep", False, True, "kept"),
        ("keep", True, None, "not judged"),
    ],
)
def test_what_became_of_a_row(role: str, before: bool | None, after: bool | None, said: str) -> None:
    assert describe_outcome(role, before, after) == said


def test_headlines_intervals_alarms_cost_and_provenance_are_there(parsed: Reader, folders: list[Path]) -> None:
    seen = read_report(folders[0])
    for m in seen.measures:
        assert format_estimate(m.edited, m.unit) in parsed.text and format_estimate(m.base, m.unit) in parsed.text
    for words in (seen.alarms[0].name, seen.alarms[0].means, seen.drawing.edit, seen.rule, seen.rows_digest, "64.5"):
        assert words in parsed.text
    assert "near neighbours lose at most 5 points: failed" in parsed.text
    # What the search chose, how often, and when.
    assert "most damaged: cat" in parsed.text and "1 to 3" in parsed.text and "4 to 8" in parsed.text


def test_attacks_stand_with_their_controls(parsed: Reader) -> None:
    for words in ("Attacks: ESD on cat", "45.0 %", "+30.0 points +10.0 to +50.0", "no value: no gradient", "3.5"):
        assert words in parsed.text
    row = parsed.text[parsed.text.index("synonyms", parsed.text.index("By attack")) :]
    numbers = [build_share(n, 20).value for n in (2, 10, 4, 19, 15)]
    at = [row.index(f"{100 * (n or 0):.1f} %") for n in numbers]
    assert at == sorted(at) and len(set(at)) == 5


def test_published_results_stand_beside_our_own(parsed: Reader, page: Path) -> None:
    assert "<b>old</b>" in parsed.text and "NER by threshold" in parsed.text
    table = parsed.text[parsed.text.index("Published results", parsed.text.index("Read from") - 200) :]
    assert table.index("90.0 % (") < table.index("98.0 % (")
    assert "2.0 % (" in table


def test_the_same_as_data(page: Path, folders: list[Path]) -> None:
    files = page.with_name("a report_files")
    whole = PageData.model_validate_json((files / "report.json").read_text())
    assert [e.record for e in whole.evaluations] == [read_report(f) for f in folders]
    assert whole.attacks[0].record.robust.value == 9 / 20 and whole.published == (build_published(),)
    rows = pq.read_table(files / "rows.parquet").to_pylist()
    assert [r["evaluation"] for r in rows] == ["ESD on cat"] * 24 + ["ESD on apple"] * 24
    assert rows[0]["prompt"] == EVIL and rows[0]["picture"] and "object-one.value" in rows[0]


def test_curves_are_drawn_for_numbers_with_thresholds(tmp_path: Path) -> None:
    sweep = [
        measure("ner", "target", build_share(n, 50), build_share(40, 50), threshold=t) for t, n in ((0.6, 3), (0.3, 9))
    ]
    made = write_evaluation(tmp_path / "e", measures=tuple(sweep), headlines=("ner/target/0.6",))
    text = write_page([made], tmp_path / "r.html").read_text()
    assert "NER of target by threshold" in text and text.count("<polyline") == 2
    assert "edited at 0.3: 0.18 (" in text and text.index("edited at 0.3") < text.index("edited at 0.6")


def test_a_second_report_takes_the_place_of_the_first(folders: list[Path], tmp_path: Path) -> None:
    write_page(folders, tmp_path / "r.html")
    both = {p.name for p in (tmp_path / "r_files").iterdir()}
    write_page(folders[1:], tmp_path / "r.html", per_group=2)
    one = {p.name for p in (tmp_path / "r_files").iterdir()}
    assert one < both and len([n for n in one if n.endswith(".png")]) == 12
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.html", "r_files"]


def test_attacks_alone_make_a_report(tmp_path: Path) -> None:
    write_attacks(tmp_path)
    text = write_page([tmp_path], tmp_path / "out" / "r.html").read_text()
    assert (
        "relearn, rows broken by then: 10.0 % before, 30.0 % with 5 steps, 40.0 % with 10 steps, 50.0 % with 20 steps."
        in text
    )
    assert "Attacks: ESD on cat" in text and not (tmp_path / "out" / "r_files" / "rows.parquet").exists()


def test_a_page_ranks_no_attacks_that_were_made_on_survivors(tmp_path: Path) -> None:
    places = [write_evaluation(tmp_path / "cat"), write_evaluation(tmp_path / "dog", targets=("dog",))]
    made = write_attacks(places[0])
    alone = tuple(m.model_copy(update={"worst_case": True}) for m in made.measures)
    write_sealed(places[0] / "attacks.json", made.model_copy(update={"measures": alone, "digest": ""}))
    text = write_page(places, tmp_path / "r.html").read_text()
    assert "shown under the strongest attack" not in text and "prompts that nothing broke" in text
    assert "none has a rate over all prompts" in text and "none was made" in text


def test_a_page_without_evaluations_says_nothing_of_a_base(tmp_path: Path) -> None:
    text = write_page([], tmp_path / "r.html", published=[build_published()]).read_text()
    assert "stands beside the untouched base" not in text


def test_what_cannot_be_reported_is_refused_before_anything_is_written(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        write_page([], tmp_path / "r.html")
    with pytest.raises(FileNotFoundError, match=r"no report\.json"):
        write_page([tmp_path], tmp_path / "r.html")
    copy = Path(shutil.copytree(folders[0], tmp_path / "copy"))
    next((copy / "images").rglob("*.png")).write_bytes(b"")
    with pytest.raises(ValueError, match="run the evaluation again"):
        write_page([copy], tmp_path / "r.html")
    (tmp_path / "mine_files").mkdir()
    (tmp_path / "mine_files" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="was not made by a report"):
        write_page(folders, tmp_path / "mine.html")
    (tmp_path / "thesis.html").write_text("years of work")
    with pytest.raises(ValueError, match=r"thesis\.html is there and was not made by a report"):
        write_page(folders, tmp_path / "thesis.html")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copy", "mine_files", "thesis.html"]
    assert (tmp_path / "mine_files" / "thesis.txt").is_file()


def test_settings_are_written_without_the_brackets_of_a_program() -> None:
    assert format_fact({"scorer": "kid", "features_version": 1}) == "scorer: kid; features version: 1"
    assert [format_fact(v) for v in (["{}", "a {}"], [], None, "", True, 0.5)] == [
        "{}, a {}",
        "none",
        "none",
        "none",
        "yes",
        "0.5",
    ]
    assert [format_number(v, "number") for v in (1267.4, 0.1957, 53.86)] == ["1,267", "0.196", "53.9"]


def test_pruning_methods_have_the_names_of_their_paper(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "pruned", method="PESD")
    assert describe_method(read_report(folder)) == "P-ESD"
    text = write_page([folder], tmp_path / "r.html").read_text()
    assert "P-ESD on cat" in text and "<dd>P-ESD</dd>" in text
