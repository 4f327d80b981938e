"""A paper's numbers of single concepts, lists of single concepts, and the protocol's judges in attacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from efface.sweeps.forecast import forecast
from efface.sweeps.grid import Grid, read_grid
from efface.sweeps.jobs import expand
from efface.sweeps.page import write_page
from efface.sweeps.protocol import choose_drawing, choose_scorers
from efface.sweeps.table import FIELDS, find_reported

PAPERS = Path(__file__).parents[2] / "recipes" / "papers"
GRID = Grid(
    models=("m",), methods=("uce", "esd"), concepts={"new": ("church", "garbage truck")}, suite="lists/{concept}.csv",
    asks="object:{concept}",
    reported={"uce": {"esr1": 0.5}, "base": {"esr1": 0.1}, "church": {"uce": {"esr1": 0.9}, "base": {"esr1": 0.2}}},
)  # fmt: skip


def told(grid: Grid, concept: str, method: str) -> tuple[object, object]:
    job = next(job for job in expand(grid) if (job.concept, job.label) == (concept, method))
    where = {"metric": "esr1", "group": "target", "judge": "all", "threshold": ""}
    return tuple(find_reported(grid, job, where).values())  # type: ignore[return-value]


def test_what_is_reported_of_a_concept_goes_before_what_is_reported_of_all() -> None:
    assert told(GRID, "church", "uce") == (0.9, 0.2)
    assert told(GRID, "garbage truck", "uce") == (0.5, 0.1)
    assert told(GRID, "church", "esd") == ("", 0.2), "the paper reports nothing of it"


def test_a_papers_number_stands_beside_whole_edits_at_the_methods_own_setting() -> None:
    grid = GRID.model_copy(update={"sweep": {"uce": {"lamb": (3.0, 0.1)}}})
    where = {"metric": "esr1", "group": "target", "judge": "all", "threshold": ""}
    jobs = {job.setting: job for job in expand(grid) if (job.concept, job.label) == ("church", "uce")}
    assert find_reported(grid, jobs["lamb 0.1"], where)["reported"] == 0.9
    assert find_reported(grid, jobs["lamb 3.0"], where) == {"reported": "", "reported_base": ""}
    assert find_reported(grid, jobs["lamb 0.1"], where, 0.5)["reported"] == "", "a share of the edit"
    assert find_reported(grid, jobs["lamb 0.1"], where, 0.0)["reported"] == "", "the untouched base"


def test_numbers_of_erased_and_kept_artists_are_told_apart() -> None:
    grid = read_grid(PAPERS / "eap-artists.toml")
    job = next(job for job in expand(grid) if job.label == "esd")
    found = {
        group: find_reported(grid, job, {"metric": "clip", "group": group, "judge": "clip", "threshold": ""})[
            "reported"
        ]
        for group in ("target", "style")
    }
    assert found == {"target": 0.2356, "style": 0.2963}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[reported.usd]\nesr1 = 1",
            "names usd, which is no method, variant or concept of the grid; there are base, uce, cat",
        ),
        ("[reported.cat.usd]\nesr1 = 1", r"\[reported.cat\] names usd, which is no method or variant of the grid"),
        ("[reported]\nuce = 1", "has uce = 1; write uce = { esr1 = 0.5 }"),
        ("[reported.uce]\nesr1 = 'much'", r"\[reported.uce\] has esr1 = 'much', which is no number"),
        ("[reported.cat.uce.all]\nesr1 = 1", "which is no number"),
    ],
)
def test_what_is_reported_must_be_of_the_grids_methods_and_concepts(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "grid.toml"
    file.write_text(f'model = "glyphs"\nmethods = ["uce"]\nconcepts = ["cat"]\n{text}\n')
    with pytest.raises(ValueError, match=message):
        read_grid(file)


def test_the_page_shows_what_is_reported_of_each_concept_and_its_mean() -> None:
    lines = [
        f"m,new,{concept},{method},,0,0,1.0,esr1,target,all,,,,,0.7,0.6,0.8,10,0,{reported},"
        for concept, method, reported in (
            ("church", "uce", 0.9), ("garbage truck", "uce", 0.5), ("church", "esd", 0.4), ("garbage truck", "esd", ""),
        )
    ]  # fmt: skip
    page = write_page(GRID, [dict(zip(FIELDS, line.split(","), strict=True)) for line in lines], "")
    means, _, every = page.partition("## Every concept")
    assert "| uce | 2 | 70.0 n=20; reported 70.0 |" in means, "the mean of 90 and 50"
    assert "| esd | 2 | 70.0 n=20 |" in means, "no mean where one of the concepts has no number"
    assert "| church | uce | 70.0 [60.0, 80.0] n=10; reported 90.0 |" in every
    assert "| garbage truck | uce | 70.0 [60.0, 80.0] n=10 |" in every, "a number of all concepts is no number of one"


def test_a_list_of_each_concept_is_found_by_its_name(tmp_path: Path) -> None:
    assert GRID.name_suite("garbage truck") == "lists/garbage_truck.csv"
    assert GRID.name_asked("garbage truck") == "object:garbage truck"
    assert forecast(GRID).fetched[1:] == (
        "the list lists/church.csv; give its path by --set suite=FOLDER/{concept}.csv",
        "the list lists/garbage_truck.csv; give its path by --set suite=FOLDER/{concept}.csv",
    )
    (tmp_path / "church.csv").write_text("prompt\nA choir.\nA church.\n")
    (tmp_path / "garbage_truck.csv").write_text("prompt\nBins.\nA truck.\nA road.\n")
    grid = GRID.model_copy(update={"suite": str(tmp_path / "{concept}.csv")})
    assert forecast(grid).pictures == (2 + 3) * 3, "two methods and the base, all rows asked for the target"


def test_attacks_take_what_the_protocol_says_on_models_without_judges() -> None:
    grid = Grid(models=("m", "glyphs"), methods=("esd",), concepts={"all": ("church",)}, protocol="esr-psr")
    assert choose_scorers(grid, "m") == ("classifier:microsoft/resnet-50",)
    assert choose_drawing(grid, "m") == {"steps": 100, "guidance": 7.5}
    assert choose_scorers(grid, "glyphs") == () and set(choose_drawing(grid, "glyphs").values()) == {None}
    own = grid.model_copy(update={"scorers": ("nudenet",), "drawing": grid.drawing.model_copy(update={"steps": 3})})
    assert choose_scorers(own, "m") == ("nudenet",) and choose_drawing(own, "m") == {"steps": 3, "guidance": 7.5}


@pytest.mark.parametrize("file", sorted(PAPERS.glob("*.toml")), ids=lambda file: file.stem)
def test_every_attack_of_a_paper_has_a_judge(file: Path) -> None:
    grid = read_grid(file)
    assert not grid.attacks or all(choose_scorers(grid, model) for model in grid.models)
