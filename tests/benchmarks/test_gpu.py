"""The page of a GPU, rehearsed at a small size on a CPU."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.gpu import GPU

CASES = ("esd", "eap", "erasediff", "uce, 5 concepts", "an attack by gradients", "drawing, 4 pictures, 4 steps", "sdxl")

COMPARED = [("sd", "esd"), ("sd", "eap"), ("sd", "erasediff"), ("sd", "an attack by gradients"), ("sdxl", "esd")]


def test_every_case_runs_and_stands_on_the_page(tmp_path: Path) -> None:
    GPU(rehearse=True, out=tmp_path, minutes=0).run()
    page = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    for case in CASES:
        assert case in page
    assert "--rehearse`: tiny random models" in page
    assert "Error" not in page and "left out" not in page and "planned GB" in page
    rows = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["rows"]
    compared = [row for row in rows if "planned GB" in row]
    assert [(row["model"], row["case"]) for row in compared] == COMPARED
    for row in compared:
        assert abs(row["planned GB"] / row["peak GB"] - 1) < 0.1, row


def test_without_a_rehearsal_the_page_names_the_cases_of_the_real_sizes() -> None:
    cases = {name for _, name, _ in GPU().list_cases()}
    assert {"uce, 100 concepts", "drawing, 4 pictures, 50 steps"} <= cases
    assert GPU().describe_run() == "`python -m benchmarks.gpu`"
    assert GPU(quantised="flux").describe_run() == "`python -m benchmarks.gpu --quantised flux`"
