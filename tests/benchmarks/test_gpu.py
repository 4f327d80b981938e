"""The page of a GPU, rehearsed at a small size on a CPU."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.gpu import GPU

CASES = ("esd", "eap", "erasediff", "uce, 100 concepts", "an attack by gradients", "drawing", "sdxl")


def test_every_case_runs_and_stands_on_the_page(tmp_path: Path) -> None:
    GPU(rehearse=True, out=tmp_path, minutes=0).run()
    page = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    for case in CASES:
        assert case in page
    assert "Error" not in page and "left out" not in page and "planned GB" in page
    rows = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["rows"]
    compared = [row for row in rows if row["case"] == "esd"]
    assert [row["model"] for row in compared] == ["sd", "sdxl"]
    for row in compared:
        assert abs(row["planned GB"] / row["peak GB"] - 1) < 0.1, row
