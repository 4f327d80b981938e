"""What was written before columns, classes and settings had the names of today is still read."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from torch import Tensor

from efface.compliance.checking import check_hashes
from efface.compliance.takedown import read_takedown
from efface.evaluation.evaluate import find_image_store
from efface.evaluation.images import ImageSet
from efface.evaluation.judging import ScoreTable, score_images
from efface.evaluation.rows_table import read_rows, read_rows_table
from efface.records.audit import read_audit
from efface.records.report import read_report
from efface.reporting.data import join_rows
from efface.reporting.gallery import build_evaluation_gallery
from efface.reporting.page import write_page
from efface.scorers import build_scorers
from efface.scorers.base import Score
from efface.scorers.classifier import Classifier
from efface.suites.spec import Row
from judging_fixtures import Planted

pytestmark = pytest.mark.filterwarnings("ignore:.* has no digest, because an earlier version wrote it:UserWarning")
HERE = Path(__file__).parent / "old_form"
EVALUATION = HERE / "evaluation"


class Unasked(Planted):
    """The judge of that time, which must not be asked again.

    It counts as efface's own, whose scores are stored without a hash of the source.
    """

    __module__ = "efface.scorers.planted"

    def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
        raise AssertionError("its scores lie there")


def load_old_images() -> ImageSet:
    """The pictures of the old evaluation, from its rows.parquet."""
    fields = [f.name for f in dataclasses.fields(Row)]
    lines = read_rows(EVALUATION)
    base = [line for line in lines if line["variant"] == "base"]
    rows = [Row(**{f: tuple(v) if isinstance(v := line[f], list) else v for f in fields}) for line in base]
    paths = {v: {x["id"]: x["picture"] for x in lines if x["variant"] == v} for v in ("base", "edited")}
    return ImageSet(rows, paths, find_image_store(EVALUATION), 16)


def test_a_column_that_was_called_who_is_read_as_variant() -> None:
    assert "who" in pq.read_schema(EVALUATION / "rows.parquet").names
    table = read_rows_table(EVALUATION)
    assert "variant" in table.column_names and "who" not in table.column_names
    assert read_rows_table(EVALUATION, ["id", "variant"]).column_names == ["id", "variant"]
    assert [line["variant"] for line in read_rows(EVALUATION)] == ["base"] * 4 + ["edited"] * 4


def test_scores_that_were_cached_are_not_made_again_and_say_the_same_success() -> None:
    images = load_old_images()
    scores = {v: {"object-planted": score_images(Unasked(), images, v, EVALUATION / "scores")} for v in images.paths}
    table = ScoreTable(images.rows, [Planted()], scores)
    stored = read_rows(EVALUATION, ["success"])
    assert [*table.successes["base"], *table.successes["edited"]] == [line["success"] for line in stored]


def test_report_audit_and_takedown_record_are_read_and_their_hashes_hold(tmp_path: Path) -> None:
    record = read_report(EVALUATION)
    assert record.version == 2 and [m.metric for m in record.list_headlines()] == ["esr1", "psr1"]
    takedown = read_takedown(EVALUATION / "takedown.json")
    found = {c.what: c.outcome for c in check_hashes(EVALUATION, takedown, None, takedown.drawing.fingerprint)}
    assert found.pop("the edit") == "not checked" and set(found.values()) == {"same"}
    audit = read_audit(HERE / "audit")
    assert [f.part for f in audit.findings] == ["worst", "control"] and audit.look["worst"] == 1


def test_the_page_shows_old_rows_beside_new_ones(tmp_path: Path) -> None:
    gallery = build_evaluation_gallery(read_report(EVALUATION), EVALUATION)
    assert len(gallery.pairs) == 4 and sum(gallery.count_verdicts().values()) == 4
    assert "esr1" in write_page([EVALUATION], tmp_path / "page.html").read_text()
    joined = join_rows(["one", "two"], [EVALUATION, EVALUATION])
    assert joined is not None and (tmp_path / "page_files" / "rows.parquet").is_file()


@pytest.mark.parametrize("setting", ["asks", "question"])
def test_a_scorers_words_say_its_question_by_either_name(setting: str) -> None:
    (found,) = build_scorers(None, {}, [f"classifier:owner/net,{setting}=style"])
    assert found == Classifier("owner/net", "style", "style-net")
