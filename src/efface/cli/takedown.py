"""`efface takedown`: from "this must be removed" to a signed answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import tyro

from ..files import check_folder
from .console import print_result, say, show_progress, tell_plan
from .loading import Loading

EXIT = {"planned": 0, "ready": 0, "not ready": 1, "undecided": 3}


@dataclass(frozen=True, kw_only=True)
class TakedownCommand:
    """Answer a takedown request: plan, erase, evaluate, attack, audit, compare, and write report, record and export.

    It ends in one sentence: ready by the rules of `efface verify --policy attacked`, not ready, or undecided, and why.
    The same command continues where it was stopped. --dry-run stops after the plan, which says how many pictures,
    queries of attacks, minutes and how much memory the work needs.

    --method auto tries the first methods of a measured table (quick 2, standard 3, thorough 4 of them; docs/choice.md
    has the table and the rule) and keeps the one that measures best on this model.

    The exit code is 0 for ready, 1 for not ready, 3 for undecided, and 2 where the request can't be carried out.
    """

    example: ClassVar[str] = "efface takedown --model glyphs --target cat --profile quick --out out/takedown"
    kept: ClassVar[str] = (
        "finished stages, pictures and the state of training are kept in --out; the same command continues there"
    )
    model: str
    """A name (`efface list models`), a diffusers folder, a file FILE.safetensors@FOLDER, or a hub id."""
    target: tyro.conf.UseAppendAction[tuple[str, ...]]
    """The concept to erase: required; repeat the flag for several."""
    out: Path
    """Folder for everything that the command writes; a takedown that was stopped there is continued."""
    kind: Literal["", "person", "style", "object", "brand", "nudity"] = ""
    """What the target is, where the model brings no suite for it; by default what its name suggests."""
    profile: Literal["quick", "standard", "thorough"] = "standard"
    """The size of the work: how many pictures, methods and attacks."""
    method: str = "auto"
    """The method (`efface list methods`), or auto."""
    dry_run: bool = False
    """Stop after the plan."""
    note: str = ""
    """Free text for the record, such as the reference of the request."""
    requester: str = ""
    """The person or organisation that made the request, for the record."""
    responder: str = ""
    """The person or organisation that answers and signs, for the record."""
    suite: str = ""
    """A suite by name, or a file of prompts; by default the model's own, or one that is drafted into OUT/suite.csv."""
    scorer: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A judge to ask; repeat the flag for several. By default the model's own, or those that are at hand."""
    anchor: str = ""
    """The concept that replaces the target, for methods that use one."""
    keep: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A concept to preserve, for methods that can; repeat the flag for several."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """An argument of one method, as eap.steps=200; repeat the flag for several."""
    json: bool = False
    """Print the result as JSON."""
    loading: Loading = field(default_factory=Loading)

    def run(self) -> int:
        if not self.target:
            raise ValueError("no target: name at least one, for example --target cat")
        check_folder(self.out)
        settings = read_settings(self.set)
        from ..api.takedown import takedown

        with show_progress() as report:
            found = takedown(
                self.loading.open_model_later(self.model),
                self.target,
                self.out,
                kind=self.kind,
                method=self.method,
                profile=self.profile,
                suite=self.suite,
                scorers=self.scorer,
                anchor=self.anchor,
                keep=self.keep,
                note=self.note,
                requester=self.requester,
                responder=self.responder,
                settings=settings,
                dry_run=self.dry_run,
                progress=report,
                on_plan=lambda plan: say("\n".join(plan.format_lines())),
                on_memory=tell_plan,
                on_trial=lambda method, sentence: say(f"{method}, before any attack: {sentence}"),
            )
        files = {name: str(path) for name, path in (found.files or {}).items()}
        data = {"outcome": found.outcome, "sentence": found.sentence, "method": found.method, "files": files}
        data["plan"] = {**vars(found.plan)}
        lines = [*(f"{name:<8} {path}" for name, path in files.items()), found.sentence]
        print_result(data, self.json, "\n".join(lines))
        return EXIT[found.outcome]


def read_settings(given: tuple[str, ...]) -> dict[str, dict[str, object]]:
    """Parses arguments by method from flags such as "eap.steps=200"; ValueError for other text."""
    from ..methods import find_name
    from .attack import parse_literal

    out: dict[str, dict[str, object]] = {}
    for each in given:
        where, equals, value = each.partition("=")
        name, dot, argument = where.partition(".")
        if not (equals and dot and argument):
            raise ValueError(
                f"--set {each!r} is not an argument; write METHOD.ARGUMENT=VALUE, for example eap.steps=200"
            )
        out.setdefault(find_name(name), {})[argument.replace("-", "_")] = parse_literal(value)
    return out
