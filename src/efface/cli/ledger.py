"""`efface ledger`: erasures applied in turn to one base, each checked again after every new one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import tyro

from ..plurals import write_percent
from .console import print_result, show_progress
from .loading import Loading


@dataclass(frozen=True)
class Ledger:
    """Enter an edit into a ledger of erasures, apply all together, and check every one of them again."""

    example: ClassVar[str] = "efface ledger out/ledger.json --model glyphs --edit cat.safetensors"
    ledger: tyro.conf.Positional[Path]
    """The ledger, a JSON file; it is created if it does not exist."""
    model: str
    """The base of all edits of the ledger."""
    edit: Path
    """The edit to enter; the earlier ones are read from where they were."""
    strength: float = 1.0
    """Strength of the new edit; 1 applies it as it was fitted."""
    suite: str = ""
    """Name of a suite, or a file of prompts, that asks for the targets; the model's own suite by default."""
    scorer: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A judge, as in `efface evaluate`; repeat the flag for several. Those that come with the model by default."""
    rows: int = 24
    """Number of pictures of each target."""
    loading: Loading = field(default_factory=Loading)
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        from ..api.ledger import add_to_ledger

        with show_progress() as report:
            book = add_to_ledger(
                self.loading.open_model_later(self.model),  # type: ignore[arg-type]
                self.ledger,
                self.edit,
                strength=self.strength,
                suite=self.suite,
                scorers=self.scorer,
                rows=self.rows,
                progress=report,
            )
        print_result(book, self.json, format_table(book))


def format_table(book: dict[str, Any]) -> str:
    """Writes how often each target is drawn, by the base and after each erasure, as text."""
    lines = []
    for i, entry in enumerate(book["entries"]):
        after = [
            f"after {check['after']}: {_format_rate(check['shown'][i])}"
            for check in book["checks"]
            if check["after"] > i
        ]
        erased = f"{', '.join(entry['targets'])} by {entry['method']}"
        lines.append(f"{erased}: base {_format_rate(entry['base'])}, {', '.join(after)}")
    return "\n".join(lines)


def _format_rate(e: dict[str, Any]) -> str:
    if e["value"] is None:
        return "not judged"
    return f"{write_percent(e['value'])} ({write_percent(e['low'])} to {write_percent(e['high'])})"
