"""`efface demo`: one erasure from beginning to end on the bundled model, with a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from .console import print_result, say, show_progress, tell_plan, tell_suite


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Erase a concept from the bundled model, judge it, and write a report with pictures: a few minutes, no network."""

    kept: ClassVar[str] = "finished pictures are kept in --out; the edit will be fitted again"
    example: ClassVar[str] = "efface demo --target cat --out out/demo"
    target: str = "cat"
    """The concept to erase: an object or a style that the model draws."""
    method: str = "surgical"
    """How to erase it; `efface list methods` lists the methods."""
    anchor: str = ""
    """What takes its place, for a method that uses an anchor; by default another thing of its kind."""
    out: Path = Path("out/demo")
    """Folder for the edit, the pictures and report.html."""
    model: str = "glyphs"
    """The name or folder of a glyphs model."""
    pictures: int = 160
    """Number of pictures of the target, of its neighbours and of unrelated concepts, each drawn with and without the
    edit."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        from ..api.demonstrating import demonstrate
        from .evaluate import format_headlines, summarise

        say(f"loading {self.model}")
        with show_progress() as report:
            made = demonstrate(
                self.target,
                self.out,
                method=self.method,
                anchor=self.anchor,
                model=self.model,
                pictures=self.pictures,
                progress=report,
                on_suite=tell_suite,
                on_plan=tell_plan,
            )
        data = {"report": str(made.page), "verdict": made.verdict.sentence, **summarise(made.record)}
        print_result(data, self.json, f"{format_headlines(made.record)}\n{made.verdict.sentence}\n{made.page}")
