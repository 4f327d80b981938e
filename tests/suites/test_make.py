"""Suites by name: those that bring a world of their own, pairs, and files of the hub."""

from __future__ import annotations

import csv
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from efface.concept import Erasure
from efface.suites import hub, make_suite, world
from efface.suites.make import check_suite, needs_world
from efface.suites.rows import build
from efface.suites.world import locate


def test_imagenette_draws_500_pictures_a_class_each_from_its_own_seed() -> None:
    suite = make_suite("imagenette", Erasure(("Chain_Saw", "church building"), keep=("golf ball",)), used=("TENCH",))
    assert suite.targets == ("chain saw", "church") and len(suite.rows) == 5000
    assert len(suite.select_group("target")) == 1000 and len(suite.select_group("seen")) == 1000
    assert {r.prompt for r in suite.select_group("seen")} == {"Image of tench", "Image of golf ball"}
    for concept in suite.labels:
        rows = [r for r in suite.rows if r.concept == concept]
        assert len(rows) == 500 == len({r.seed for r in rows}) and len({r.prompt for r in rows}) == 1
    assert len(make_suite("imagenette", Erasure(("tench",)), per_group=7).rows) == 70
    with pytest.raises(ValueError, match="can't judge 'tenc'; did you mean 'tench'"):
        make_suite("imagenette", Erasure(("tenc",)))


def test_artists_are_kept_or_erased_by_name_or_surname() -> None:
    suite = make_suite("artists", Erasure(("van gogh", "Kelly McKernan")))
    assert suite.targets == ("Vincent van Gogh", "Kelly McKernan")
    assert all(r.style in r.prompt and r.asks == "style" for r in suite.rows)
    assert {r.concept for r in suite.select_group("style")}.isdisjoint(suite.targets)


@pytest.mark.parametrize(("name", "target", "asks"), [("styles", "Van_Gogh", "style"), ("objects", "dogs", "object")])
def test_unlearncanvas_asks_for_all_styles_of_all_objects_five_times(name: str, target: str, asks: str) -> None:
    suite = make_suite(f"unlearncanvas-{name}", Erasure((target,)))
    cells = Counter((r.style, r.thing) for r in suite.rows)
    styles, things = ({cell[i] for cell in cells} for i in (0, 1))
    assert (len(styles), len(things), len(cells)) == (51, 20, 51 * 20) and set(cells.values()) == {5}
    assert all(r.prompt == f"A {r.thing} image in {r.style} style." and r.asks == asks for r in suite.rows)
    assert {r.concept for r in suite.select_group("target")} == set(suite.targets)
    assert all((r.role == "erase") == (r.group == "target") for r in suite.rows)
    assert len({r.seed for r in suite.rows}) > 5000, "every picture has a seed of its own"
    kept = {(r.id, r.prompt, r.seed) for r in suite.rows if r.role == "keep"}
    other = make_suite(f"unlearncanvas-{name}", Erasure(("Seed_Images" if name == "styles" else "Sea",)))
    both = {r for r in kept if "Seed Images" not in r[0] and "Sea/" not in r[0]}
    assert both <= {(r.id, r.prompt, r.seed) for r in other.rows}, "what is kept is the same whatever is erased"


def test_compound_asks_whether_the_other_thing_is_still_there() -> None:
    suite = make_suite("compound", Erasure(("bicycle",)))
    gone, beside, pair = (suite.select_group(g) for g in ("target", "beside", "pair"))
    assert len(gone) == len(beside) == 48 and len(pair) == 160
    assert {(r.prompt, r.seed) for r in gone} == {(r.prompt, r.seed) for r in beside}
    assert all(r.second == "bicycle" != r.concept and r.concept in r.prompt for r in beside)
    assert not any("bicycle" in r.prompt for r in pair)
    asked = [pair["prompt"] for pair in suite.spec.brings["pairs"]]
    assert len(asked) == len(set(asked)) >= 60
    for pair_ in suite.spec.brings["pairs"]:
        assert pair_["first"] in pair_["prompt"] and pair_["second"] in pair_["prompt"]
    things = [p[side] for p in suite.spec.brings["pairs"] for side in ("first", "second")]
    assert len(set(things)) >= 20 and {things.count(t) for t in things} == {6}


def test_hub_suites_are_read_from_the_file_that_is_fetched(tmp_path: Path) -> None:
    columns = ["prompt", "categories", "nudity_percentage", "sd_seed", "sd_guidance_scale", "sd_model"]
    with (tmp_path / "i2p.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, ["a portrait", "sexual", "40.0", "77", "7", "sd"]])
    pq.write_table(pa.table({"file_name": ["1.jpg"], "captions": [["A dog."]]}), tmp_path / "coco.parquet")
    asked = []

    def fetch(repository: str, file: str, revision: str) -> Path:
        asked.append((repository, file, revision))
        return tmp_path / ("i2p.csv" if file.endswith(".csv") else "coco.parquet")

    nude = make_suite("i2p", Erasure(("nudity",)), fetch=fetch)
    assert [(r.seed, r.guidance, r.asks) for r in nude.rows] == [(77, 7.0, "nudity")]
    assert nude.spec.name == "i2p" and nude.spec.version.startswith("1+")
    coco = make_suite("coco", Erasure(("cat",)), fetch=fetch)
    assert [(r.prompt, r.role) for r in coco.rows] == [("A dog.", "keep")]
    assert [a[0] for a in asked] == ["AIML-TUDA/i2p", "phiyodr/coco2017"] and len(asked[0][2]) == 40


def test_a_hub_out_of_reach_is_one_clear_error_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    began = time.monotonic()
    with pytest.raises(OSError, match=r"does not answer.*fetch i2p_benchmark.csv of AIML-TUDA/i2p by hand"):
        make_suite("i2p", Erasure(("nudity",)))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="HF_HUB_OFFLINE is set"):
        hub.fetch("AIML-TUDA/i2p", "i2p_benchmark.csv", "main")
    assert time.monotonic() - began < 5


def test_glyphs_suites_need_a_world_and_others_do_not() -> None:
    known = world.load(locate("glyphs"))
    erasure = Erasure(known.names[:1])
    assert needs_world("glyphs-objects") and not any(map(needs_world, ("compound", "i2p", "some.csv")))
    assert make_suite("glyphs-objects", erasure, known, per_group=3) == build("glyphs-objects", erasure, known, 3)
    with pytest.raises(
        ValueError, match="for glyphs and its like; other models take artists, cifar10, coco, compound, i2p"
    ):
        make_suite("glyphs-objects", erasure)


def test_names_are_checked_before_anything_is_opened(tmp_path: Path) -> None:
    check_suite("i2p")
    with pytest.raises(ValueError, match=r"there is no suite 'glyph-objects', nor such a file"):
        check_suite("glyph-objects")
    with pytest.raises(FileNotFoundError, match="no file"):
        check_suite(str(tmp_path / "mine.csv"))
    (tmp_path / "mine.CSV").write_text("prompt\na cat\n")
    check_suite(str(tmp_path / "mine.CSV"))
