"""`efface report` as it is called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from efface.cli.app import main
from report_fixtures import write_evaluation

TOPK = """,label_str,category_top1,scores_top1,case_number
0,church,tench,0.9,1
1,church,church,0.8,2
2,tench,tench,0.7,3
"""


def test_evaluations_and_published_files_make_one_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, old = write_evaluation(tmp_path / "e"), tmp_path / "old.csv"
    old.write_text(TOPK)
    out = tmp_path / "new" / "r.html"
    args = ["report", str(folder), "--import", str(old), "--erased", "Church", "--per-group", "2", "--out", str(out)]
    assert main([*args, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"report": str(out), "files": str(out.parent / "r_files"), "evaluations": [str(folder)]}
    whole = json.loads((out.parent / "r_files" / "report.json").read_text())
    assert [r["estimate"]["value"] for r in whole["published"][0]["rates"]] == [0.5, 1.0]
    assert len(list((out.parent / "r_files").glob("*.png"))) == 3 * 2 * 2
    assert main(["report", "--import", str(old), "--erased", "church", "--out", str(out)]) == 0
    assert "Published results" in out.read_text()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "no evaluation to report on"),
        (["{tmp}"], "no report.json"),
        (["{tmp}", "{tmp}/../{name}"], "is given twice; the page shows each evaluation once"),
        (["{tmp}", "--per-group", "0"], "at least 1"),
        (["{tmp}", "--erased", "church"], "give one with --import"),
        (["--import", "{tmp}/none.csv", "--erased", "church"], "none.csv"),
    ],
)
def test_bad_input_exits_2(args: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [a.format(tmp=tmp_path, name=tmp_path.name) for a in args]
    assert main(["report", *given, "--out", str(tmp_path / "r.html")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()
