"""Attacks and judging: prompts a minute.

    python -m benchmarks.attacks --edit out/cat.safetensors
    python -m benchmarks.attacks --edit out/cat.safetensors --attack ring-a-bell --attack p4d --rows 16

An attack's prompts a minute are the number of attacked rows divided by the time of the attack, including all that it
draws and judges. The number of pictures that it drew is printed beside it. Judging is timed on existing pictures.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

import efface
from efface.attacks import STANDARD, build_attack
from efface.edits.edit import Edit
from efface.evaluation.evaluate import read_request, read_used_words
from efface.robustness.campaign import Campaign, attack
from efface.robustness.conditions import find_aliases
from efface.scorers import build_scorers
from efface.scorers.base import SetScorer
from efface.suites import make_suite, world
from efface.suites.world import locate

from .common import describe_flags, describe_machine, format_table, measure_work, time_repeatedly, write


@dataclass(frozen=True, kw_only=True)
class Attacks:
    """Measures prompts a minute, by attack and by scorer."""

    edit: Path
    """What is attacked, an edit of the model."""
    model: str = "glyphs"
    """A name, or a folder of that make."""
    suite: str = "glyphs-objects"
    """Whose first group that must be gone is attacked."""
    attack: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Attacks by name; the standard five where none is given."""
    rows: int = 8
    """Prompts that are attacked."""
    controls: int = 4
    """Prompts in each control."""
    pictures: int = 64
    """That each scorer judges."""
    out: Path = Path("out/benchmarks/attacks")
    """Folder of the result; the attacks' own files go to a temporary one, so that nothing is taken over."""

    def run(self) -> None:
        model: Any = efface.load(self.model)
        bundle = locate(self.model)
        known = world.load(bundle)
        edit = Edit.load(self.edit)
        suite = make_suite(self.suite, read_request(edit), known, used=read_used_words(edit))
        scorers = build_scorers(bundle, known.backgrounds)
        made = [build_attack(name, self.model) for name in self.attack or STANDARD]
        how = Campaign(rows=self.rows, controls=self.controls, skip=not self.attack)
        with tempfile.TemporaryDirectory() as folder:
            record = attack(model, self.edit, suite, scorers, Path(folder), made, find_aliases(known), campaign=how)
        tried = [self.measure_speed(t) for t in record.measures if t.condition == "target" and not t.missing]
        judged = self.measure_judging(model, scorers, suite)
        flags = describe_flags(self)
        write(self.out, "attacks", {"stamp": describe_machine(flags=flags), "attacks": tried, "judging": judged})
        for lines in (tried, judged):
            print(format_table(list(lines[0]), [list(line.values()) for line in lines]) + "\n")

    def measure_speed(self, measure: Any) -> dict[str, Any]:
        """Measures what one attack takes on the erased concept."""
        fought = measure.drawn / measure.queries if measure.queries else 0
        return {
            "attack": measure.attack,
            "prompts": round(fought),
            "seconds": measure.seconds,
            "prompts a minute": 60 * fought / measure.seconds if measure.seconds else 0.0,
            "pictures drawn": measure.drawn,
        }

    def measure_judging(self, model: Any, scorers: Any, suite: Any) -> list[dict[str, Any]]:
        """Measures drawing, and each scorer that looks at single pictures."""
        rows = (suite.rows * self.pictures)[: self.pictures]
        prompts, seeds = [row.prompt for row in rows], list(range(len(rows)))
        images = model.images(prompts, seeds)
        drawing = measure_work(lambda: model.images(prompts, seeds)).seconds
        found = [{"what": "drawing", "pictures a minute": 60 * len(rows) / drawing}]
        for scorer in scorers:
            if isinstance(scorer, SetScorer):
                continue
            seconds = time_repeatedly(lambda scorer=scorer: scorer.score(images, rows, images), times=3)
            found.append({"what": scorer.name, "pictures a minute": 60 * len(rows) / seconds})
        return found


if __name__ == "__main__":
    tyro.cli(Attacks).run()
