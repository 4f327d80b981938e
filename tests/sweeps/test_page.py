"""The page of a sweep: means over concepts, their intervals, and what is not done yet."""

from __future__ import annotations

from efface.sweeps.grid import Comparison, Grid
from efface.sweeps.made import Made
from efface.sweeps.page import write_page
from efface.sweeps.table import FIELDS


def test_a_page_gives_means_over_concepts_with_the_base_and_what_is_reported() -> None:
    grid = Grid(models=("m",), methods=("uce",), concepts={"new": ("a", "b")}, columns=("esr1/target", "clip/unseen"))
    lines = [
        "m,new,a,uce,,0,0,1.0,esr1,target,all,,0.1,0.0,0.2,0.9,0.8,1.0,10,1,0.75,0.2",
        "m,new,b,uce,,0,0,1.0,esr1,target,all,,0.3,0.2,0.4,0.7,0.6,0.8,10,0,0.75,0.2",
        "m,new,b,uce,,0,0,1.0,esr1,target,regnet,,0.3,0.2,0.4,0.0,0.0,0.1,10,0,,",
    ]
    table = [dict(zip(FIELDS, line.split(","), strict=True)) for line in lines]
    page = write_page(grid, table, "efface sweep grid.toml --out out")
    assert "| uce | 2 | 80.0 n=20 (20.0); reported 75.0 (20.0) | – |" in page, "two concepts are too few to bootstrap"
    assert "| a | uce | 90.0 [80.0, 100.0] n=10, 1 unscored (10.0) | – |" in page


def test_a_mean_weighs_concepts_alike_and_its_interval_is_over_them_not_over_seeds() -> None:
    grid = Grid(models=("m",), methods=("esd",), concepts={"new": tuple("abcd")}, columns=("esr1/target",))
    lines = [f"m,new,{concept},esd,,0,{seed},1.0,esr1,target,all,,,,,{value},,,10,0,," for concept, seed, value in (
        ("a", 0, 0.4), ("a", 1, 0.6), ("b", 0, 0.9), ("c", 0, 0.5), ("d", 0, 0.9),
    )]  # fmt: skip
    table = [dict(zip(FIELDS, line.split(","), strict=True)) for line in lines]
    alarms = (("base rarely shows it", tuple(f"esd of {name}" for name in "abcde")),)
    page = write_page(grid, table, "", Made(cells=48, done=31, seconds={"erase": 3600.0}, alarms=alarms))
    assert "| esd | 4 | 70.0 [50.0, 90.0] n=50 |" in page, "the mean of 50, 90, 50 and 90"
    assert "**Only 31 of 48 cells are done so far**, in 1.00 core-hours (erase 1.00)." in page
    cut = Made(cells=48, done=48, seconds={"erase": 3600.0}, interrupted=2)
    begins = "All 48 cells are done, in 1.00 core-hours (erase 1.00), without the first attempts at 2 cells."
    assert begins in write_page(grid, table, "", cut)
    empty = write_page(grid, [], "", Made(cells=48))
    assert "**None of 48 cells is done so far.**" in empty and "|" not in empty
    assert "| base rarely shows it | 5: esd of a; esd of b; esd of c, and 2 more |" in page


def build_lines(*lines: str) -> list[dict[str, str]]:
    return [dict(zip(FIELDS, line.split(","), strict=True)) for line in lines]


def test_models_are_kept_apart() -> None:
    grid = Grid(
        models=("m", "k"), methods=("uce", "esd"), concepts={"new": ("a",)}, columns=("psr1/unseen", "esr1/target"),
        compare=(
            Comparison(title="Equal", pairs=(("uce", "esd"),), of="psr1/unseen", at="esr1/target", levels=(0.9,)),
        ),
    )  # fmt: skip
    table = build_lines(*(
        f"{model},new,a,{method},,0,0,1.0,{column},all,,{base},,,{value},,,10,0,,"
        for model, kept in (("m", 0.9), ("k", 0.3))
        for method in ("uce", "esd")
        for column, base, value in (("psr1,unseen", 1.0, kept), ("esr1,target", 0.0, 0.9))
    ))  # fmt: skip
    page = write_page(grid, table, "")
    assert "| m | uce | 1 | 90.0 n=10 (100.0) | 90.0 n=10 (0.0) |" in page
    assert "| k | uce | 1 | 30.0 n=10 (100.0) | 90.0 n=10 (0.0) |" in page, "not the mean of both models"
    assert "| m | uce | 90.0 n=10 (100.0) |" in page and "| k | uce | 30.0 n=10 (100.0) |" in page
    assert "| uce / esd on m | 90.0 | a | 0 | 90.0 | 90.0 | +0.0 |" in page
    assert "| uce / esd on k | 90.0 | a | 0 | 30.0 | 30.0 | +0.0 |" in page


def test_a_mean_of_fewer_concepts_than_the_row_has_says_so() -> None:
    grid = Grid(models=("m",), methods=("esd",), concepts={"new": ("a", "b")}, columns=("esr1/target", "robust/target"))
    table = build_lines(
        "m,new,a,esd,,0,0,1.0,esr1,target,all,,,,,0.9,,,10,0,,",
        "m,new,b,esd,,0,0,1.0,esr1,target,all,,,,,0.7,,,10,0,,",
        "m,new,a,esd,,0,0,1.0,robust,target,all,,,,,0.5,,,4,0,,",
    )
    assert "| esd | 2 | 80.0 n=20 | 50.0 n=4 of 1 concept |" in write_page(grid, table, "")


def test_of_a_number_that_several_judges_give_apart_the_page_has_the_first_ones() -> None:
    grid = Grid(models=("m",), methods=("esd",), concepts={"new": ("a", "b")}, columns=("clip/unseen",))
    table = build_lines(*(
        f"m,new,{concept},esd,,0,0,1.0,clip,unseen,{judge},,,,,{value},,,10,0,,"
        for concept in "ab" for judge, value in (("clip:large", 0.2), ("clip:small", 0.4))
    ))  # fmt: skip
    page = write_page(grid, table, "")
    assert "| esd | 2 | 0.2 n=20 |" in page, "10 pictures of each concept, not the mean of two judges of 40"
    assert "| a | esd | 0.2 n=10 |" in page and "first judge's" in page
    assert "first judge's" not in write_page(grid, table[::2], "")


def test_what_failed_stands_on_the_page() -> None:
    grid = Grid(models=("m",), methods=("esd",), concepts={"new": ("a",)})
    made = Made(cells=2, done=1, failed=(("ValueError: no | such\nthing", ("esd of a on m",)),))
    assert "## Failed in their last run" in write_page(grid, [], "", made)
    assert "| ValueError: no \\| such thing | 1: esd of a on m |" in write_page(grid, [], "", made)
