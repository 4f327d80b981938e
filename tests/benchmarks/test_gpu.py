"""The page of a GPU, rehearsed at a small size."""

from __future__ import annotations

from pathlib import Path

import efface
from benchmarks.gpu import GPU
from tiny import WORDS, small_pipeline


def test_every_case_runs_and_stands_on_the_page(tmp_path: Path, monkeypatch) -> None:
    def opened(*_):
        model = efface.load(small_pipeline(), "cpu")
        model.own_words = WORDS
        return model

    monkeypatch.setattr(GPU, "opened", opened)
    GPU(rehearse=True, out=tmp_path).run()
    page = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    for case in ("esd", "eap", "erasediff", "uce, 100 concepts", "an attack by gradients", "drawing", "sdxl"):
        assert case in page
    assert "Error" not in page and "planned GB" in page
