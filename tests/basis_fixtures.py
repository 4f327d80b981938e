"""Ways to change an evaluated and attacked folder, and the commands that read one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from efface.api.publishing import record as write_record
from efface.api.publishing import report as write_report
from efface.api.publishing import verify
from efface.records import attack_files
from efface.records.attacks import Batch, PlannedAttack, RowResult
from efface.records.sealed import write_sealed
from report_fixtures import build_share


def change_attacks(folder: Path, **changes: Any) -> None:
    """Rewrite `folder`/attacks.json as if it had been made otherwise; fields of the drawing are taken too."""
    made = attack_files.read_file(folder)
    assert made is not None
    drawing = {k: v for k, v in changes.items() if k in made.drawing.model_fields_set}
    rest = {k: v for k, v in changes.items() if k not in drawing}
    write_sealed(
        folder / "attacks.json",
        made.model_copy(update={"drawing": made.drawing.model_copy(update=drawing), **rest}),
    )


READERS: dict[str, Callable[[Path], object]] = {
    "report": lambda f: write_report(f, f.parent / "page.html"),
    "verify": lambda f: verify(f, "esr1<0.9"),
    "record": lambda f: write_record(f),
}


def stop(folder: Path, attack: str = "seeds") -> None:
    """An attack that was interrupted after two of twenty rows, of which it broke one."""
    rows = tuple(RowResult(row=f"target/cat/{i}", broken=i == 0, queries=1) for i in range(2))
    planned = PlannedAttack(attack=attack, condition="target", version="1", settings={}, inputs=("x",), rows=20)
    worst = {f"target/cat/{i}": False for i in range(20)}
    change_attacks(folder, planned=(planned,), worst=worst, robust=build_share(20, 20))
    (folder / "attacks" / attack).mkdir()
    batch = Batch(attack=attack, condition="target", inputs="x", row_results=rows, seconds=1.0)
    (folder / "attacks" / attack / "target-0.json").write_text(batch.model_dump_json())
