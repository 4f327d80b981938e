"""`efface demo`: one erasure end to end on the bundled model, with a report to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..concept import Erasure
from ..files import check_folder
from .console import progress, result, say, tell_plan


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Erase a concept from the bundled model, judge it, and write a report with pictures: a few minutes, no network."""

    kept: ClassVar[str] = "finished pictures lie in --out; the edit is fitted again unless it was finished"
    example: ClassVar[str] = "efface demo --target cat --out out/demo"
    target: str = "cat"
    """What to erase: a thing or a style that the model draws."""
    method: str = "eap"
    """How to erase it; `efface list methods` lists the methods."""
    out: Path = Path("out/demo")
    """Folder for the edit, the pictures and report.html."""
    model: str = "glyphs"
    """A model of the glyphs make."""
    pictures: int = 64
    """Pictures of the target, of its neighbours, and of unrelated things: each with and without the edit."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        from ..api.resources import suite_for
        from ..suites import world
        from ..suites.rows import build
        from ..suites.world import locate
        from .evaluate import headlines, summary

        bundle = locate(self.model)
        known = world.load(bundle)
        erasure = Erasure(known.expand((self.target,)))
        suite_name = suite_for(erasure, known)
        groups = ("target", "style", "unseen") if suite_name == "glyphs-styles" else ("target", "neighbour", "unseen")
        suite = build(suite_name, erasure, known, sizes=dict.fromkeys(groups, self.pictures), only=groups)
        check_folder(self.out)

        from .. import load
        from ..api.erasing import erase
        from ..evaluation.evaluate import evaluate
        from ..reporting.page import write_page
        from ..scorers import build_scorers

        say(f"loading {self.model}")
        model = load(self.model)
        edit_file = self.out / "edit.safetensors"
        with progress() as on_progress:
            erase(model, erasure, self.method, progress=on_progress, on_plan=tell_plan).save(edit_file)
            scorers = build_scorers(bundle, known.backgrounds)
            where = self.out / f"evaluation-{suite_name}"
            store = self.out / "images"
            record = evaluate(
                model, edit_file, suite, scorers, _fresh(where), image_store=store, on_progress=on_progress
            )
        page = write_page([where], self.out / "report.html")
        result({"report": str(page), **summary(record)}, self.json, f"{headlines(record)}\n{page}")


def _fresh(folder: Path) -> Path:
    """A demo starts anew: it would be refused by the protocol of another target."""
    (folder / "protocol.json").unlink(missing_ok=True)
    return folder
