"""`efface suite new`: draft a suite of prompts for a target that no suite asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import tyro

from ..files import check_file
from ..plurals import write_count
from .console import print_result
from .loading import Loading


@dataclass(frozen=True, kw_only=True)
class SuiteCommand:
    """Draft a suite of prompts for a target of your own, as a csv to edit.

    It asks for the target by its name and in other words, for its near neighbours, which the model's own text encoder
    finds, and for unrelated things. Its columns are `prompt`, `evaluation_seed`, `class` (for styles `artist`), which
    is what the picture should show, and `group`, which is target, paraphrase, neighbour or unrelated.
    """

    example: ClassVar[str] = 'efface suite new --model glyphs --target "a name" --kind person --out suite.csv'
    what: tyro.conf.Positional[Literal["new"]]
    """The action; `new` is the only one."""
    model: str
    """A name (`efface list models`), a diffusers folder, a file FILE.safetensors@FOLDER, or a hub id."""
    target: tyro.conf.UseAppendAction[tuple[str, ...]]
    """The concept to erase: required; repeat the flag for several of one kind."""
    out: Path
    """The csv to write."""
    kind: Literal["", "person", "style", "object", "brand", "nudity"] = ""
    """The kind of the target; by default the one that its name suggests."""
    neighbours: int = 8
    """Number of neighbouring concepts."""
    near: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A neighbouring concept to use instead of those that are found; repeat the flag for several."""
    size: int = 80
    """Number of prompts in each of the four groups."""
    seed: int = 0
    """Seed from which the seeds of the pictures are derived."""
    overwrite: bool = False
    """Replace the file of --out if it exists."""
    json: bool = False
    """Print the result as JSON."""
    loading: Loading = field(default_factory=Loading)

    def run(self) -> None:
        if not self.target:
            raise ValueError("no target: name at least one, for example --target cat")
        check_file(self.out)
        from ..api.drafting import draft_suite, name_own_suite, propose_judges
        from ..suites.drafting import find_kind, read_groups

        file = draft_suite(
            self.loading.open_model_later(self.model),
            self.target,
            self.out,
            kind=self.kind,
            neighbours=self.neighbours,
            size=self.size,
            near=self.near,
            seed=self.seed,
            overwrite=self.overwrite,
        )
        kind = find_kind(self.kind, self.target)
        try:
            judges, advice = propose_judges(kind), ""
        except ValueError as error:
            judges, advice = [], str(error)
        told = f"judges at hand: {', '.join(judges)}" if judges else advice
        if brought := name_own_suite(self.model, self.target):
            told = f"{self.model} brings a suite for this, {brought}, with judges that know it; a draft needs others"
        groups = read_groups(file.read_text(encoding="utf-8"))
        near = list(dict.fromkeys(groups["neighbour"]))
        data = {"suite": str(file), "kind": kind.name, "neighbours": near, "judges": judges}
        lines = [
            str(file),
            f"{write_count(sum(map(len, groups.values())), 'prompt')}, {self.size} in each of the groups "
            f"{', '.join(groups)}",
            f"neighbours (--near names others): {', '.join(near)}",
            f"kind: {kind.name}" + ("" if self.kind else ", guessed from the name; --kind sets it"),
            told,
        ]
        print_result(data, self.json, "\n".join(lines))
