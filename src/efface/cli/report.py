"""`efface report`: one HTML file for one or several evaluations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from .console import progress, result


@dataclass(frozen=True)
class Report:
    """Write one HTML file, which needs no network, for evaluations, attacks and published results.

    Beside PAGE.html comes PAGE_files/: the pictures at full size, report.json and rows.parquet.
    """

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Folders that `efface evaluate` or `efface attack` wrote."""
    out: Path
    """HTML file to write."""
    imports: Annotated[tyro.conf.UseAppendAction[tuple[Path, ...]], tyro.conf.arg(name="import")] = ()
    """A result file that the ESD or EAP evaluation scripts wrote, to stand beside; repeat the flag for several."""
    erased: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A class that was erased in the imported files; repeat the flag for several."""
    kept: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A class that was to stay in the imported files; repeat the flag for several. All others by default."""
    per_group: int | None = None
    """Pairs of pictures shown of each group, spread over its rows; all by default."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        if self.per_group is not None and self.per_group < 1:
            raise ValueError(f"--per-group is a number of pairs, at least 1, got {self.per_group}")
        if (self.erased or self.kept) and not self.imports:
            raise ValueError("--erased and --kept speak of imported files; give one with --import")
        from ..evaluation import published
        from ..files import check_writable
        from ..reporting.page import write

        check_writable(self.out)
        others = [published.read(path, self.erased, self.kept or None) for path in self.imports]
        with progress() as tell:
            write(self.folders, self.out, self.per_group, lambda i, n: tell("thumbnails", i, n), others)
        beside = self.out.with_name(f"{self.out.stem}_files")
        data = {"report": str(self.out), "files": str(beside), "evaluations": [str(f) for f in self.folders]}
        result(data, self.json, f"{self.out}\n{beside}")
