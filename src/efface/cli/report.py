"""`efface report`: one HTML file for one or several evaluations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from .console import result


@dataclass(frozen=True)
class Report:
    """Write one HTML file, which needs no network, for one or several evaluations."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    """Folders that `efface evaluate` wrote."""
    out: Path
    """HTML file to write."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        from ..report import write
        from ..store import check_writable

        check_writable(self.out)
        write(self.folders, self.out)
        result({"report": str(self.out), "evaluations": [str(f) for f in self.folders]}, self.json, str(self.out))
