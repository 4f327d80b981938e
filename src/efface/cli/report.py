"""`efface report`: one HTML file for one or several evaluations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from .console import print_result, show_progress


@dataclass(frozen=True)
class Report:
    """Write one HTML file, which needs no network, for evaluations, attacks and published results.

    The folder PAGE_files/ beside PAGE.html holds the pictures at full size, report.json and rows.parquet.
    """

    example: ClassVar[str] = "efface report out/cat --out out/cat.html"
    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Folders that `efface evaluate` or `efface attack` wrote."""
    out: Path
    """HTML file to write."""
    imports: Annotated[tyro.conf.UseAppendAction[tuple[Path, ...]], tyro.conf.arg(name="import")] = ()
    """A result file of the ESD or EAP evaluation scripts, to compare with; repeat the flag for several."""
    erased: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A class that was erased in the imported files; repeat the flag for several."""
    kept: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A class that was preserved in the imported files; repeat the flag for several. All others by default."""
    per_group: int | None = None
    """Number of picture pairs shown of each group, spread over its rows; all by default."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        from ..api.publishing import report

        with show_progress() as told:
            report(
                self.folders,
                self.out,
                imports=self.imports,
                erased=self.erased,
                kept=self.kept,
                per_group=self.per_group,
                progress=told,
            )
        beside = self.out.with_name(f"{self.out.stem}_files")
        data = {"report": str(self.out), "files": str(beside), "evaluations": [str(f) for f in self.folders]}
        print_result(data, self.json, f"{self.out}\n{beside}")
