"""The audit of an edit: finds the words that it damaged most by a search over a vocabulary, and draws them.

EAP preserves, while it erases, the concept that is damaged most (Bui et al., arXiv 2410.15618); here its measure finds
what any method damaged in the end. For each word c of a vocabulary

    damage(c) = mean over stored states x_t of  w_t || eps_edited(x_t, c) - eps_base(x_t, c) ||^2,

where the states are on the untouched base's trajectories under the empty prompt (EAP draws one under c for each step),
and the weight w_t makes it a distance of predicted pictures ("x0", EAP's) or of noises ("eps"). A guide changes only
sampling and no prediction: there the measure is the distance between the ends of the base's and the guided trajectory
under c, from the same noise. The worst words, and some random words, are then drawn before and after the edit, from
seeds that the search did not use, and judged.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..concept import Erasure, check_choices, fold_name
from ..edits.edit import Edit
from ..edits.strength import check_strength
from ..evaluation.drawing import Drawings, Progress, Settings
from ..evaluation.trial import try_scorers
from ..files import hash_file, write_whole
from ..functional.candidates import measure_distances
from ..functional.schedules import space_weight
from ..functional.words import list_other_words
from ..models.base import Model
from ..models.trajectory import choose_image_batch
from ..origin import describe_scorer
from ..plurals import write_count
from ..records.audit import FORMAT_VERSION, Audit, AuditedWord, Searched
from ..records.sealed import write_sealed
from ..scorers import Judge
from ..suites.world import World
from .audit_images import average_over_words, build_rows, draw_and_judge, draw_sheet
from .text_paths import find_text_paths, name_open_paths

COMMON = 400
"""Words of the model's own vocabulary that are searched by default, the most common ones."""
HELD = 64
"""Words whose predictions are held at once."""


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """How an audit searches and confirms."""

    worst: int = 12
    """Number of most damaged words that are drawn."""
    controls: int = 6
    """Number of words taken at random that are drawn for comparison."""
    count: int = 8
    """Pictures of each word, drawn without and with the edit."""
    states: int = 4
    """Number of start noises in the search."""
    points: int = 4
    """Number of timesteps in the search, spread evenly over the trajectory."""
    space: Literal["x0", "eps"] = "x0"
    """Whether damage is measured as a distance between predicted pictures or between predicted noises."""
    template: str = "a picture of a {}"
    """Prompt by which a word is drawn; {} stands for the word."""
    near: float = 0.02
    """Share of the vocabulary that is marked as possible synonyms of a target: the words nearest to it."""
    steps: int | None = None
    """Sampling steps; the model's own number by default."""
    guidance: float | None = None
    """Guidance; the model's own by default."""
    strength: float = 1.0
    """Strength of the edit; 1 applies it as it was fitted."""
    seed: int = 0
    """Seed of the start noises and of the random words."""

    def __post_init__(self) -> None:
        for name in ("worst", "count", "states", "points"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.controls < 0 or not 0 <= self.near < 1:
            raise ValueError(f"controls is at least 0 and near from 0 to 1, got {self.controls} and {self.near:g}")
        if self.template.count("{}") != 1:
            raise ValueError(f"a template holds the word as {{}}, once; got {self.template!r}")
        check_choices(self)
        check_strength(self.strength)


def list_vocabulary(model: Model, erasure: Erasure, known: World | None, given: Sequence[str] = ()) -> list[str]:
    """The words to search, without targets: those given, or the model's common ones and its world's names."""
    things = [name for thing in known.things for name in (thing.name, *thing.synonyms)] if known else []
    words = [word for w in given or (*things, *model.list_words(COMMON)) if (word := w.strip())]
    return list_other_words(words, known.expand(erasure.targets) if known else erasure.targets)


def search_damage(
    model: Model,
    edit: Edit,
    words: Sequence[str],
    config: AuditConfig,
    progress: Callable[[int, int], None] | None = None,
) -> list[float]:
    """The damage of each word; raises ArithmeticError where one is NaN or infinite."""
    prompts = [config.template.replace("{}", word) for word in words]
    on_progress = progress or (lambda done, total: None)
    by = _measure_by_drawing if edit.meta.get("guide") else _measure_by_prediction
    with torch.no_grad():
        damage = by(model, edit, prompts, config, on_progress)
    if lost := [word for word, each in zip(words, damage, strict=True) if not math.isfinite(each)]:
        raise ArithmeticError(
            f"the damage of {write_count(len(lost), 'word')} of {len(words)}, first {lost[0]!r}, is NaN or infinite: "
            f"{model.name} or the edit leaves the range of its dtype; a wider one, such as fp32, may help"
        )
    return damage


def _measure_by_prediction(
    model: Model, edit: Edit, prompts: Sequence[str], config: AuditConfig, on_progress: Callable[[int, int], None]
) -> list[float]:
    """Measures damage by both models' predictions at the same states, on the base's trajectories under ""."""
    empty = model.encode([""])
    seeds = [config.seed + i for i in range(config.states)]
    draw = model.sample(empty, empty, seeds, steps=config.steps, guidance=1.0, record=True, sampler="ddim")
    kept = [(2 * k + 1) * len(draw.t) // (2 * config.points) for k in range(min(config.points, len(draw.t)))]
    x = draw.states[kept].flatten(0, 1)
    t = draw.t[kept].repeat_interleave(config.states)
    weight = space_weight(model.find_noise_level(t), model.space, config.space).to(x.device)
    out: list[float] = []
    for start in range(0, len(prompts), HELD):
        part = prompts[start : start + HELD]
        before = _predict(model, part, x, t)
        with edit.apply(model, config.strength):
            after = _predict(model, part, x, t)
        error = (after - before).square().flatten(2).mean(dim=2) * weight
        out += error.mean(dim=1).tolist()
        on_progress(len(out), len(prompts))
    return out


def _predict(model: Model, prompts: Sequence[str], x: Tensor, t: Tensor) -> Tensor:
    """Predictions, float [words, states, c, h, w], of the model that is in place, for each word at all states."""
    size = max(1, 2 * choose_image_batch(model.resolution) // len(x))
    out = []
    for start in range(0, len(prompts), size):
        part = prompts[start : start + size]
        rows = [i for i in range(len(part)) for _ in range(len(x))]
        states = x.repeat(len(part), *[1] * (x.dim() - 1))
        said = model.predict(states, t.repeat(len(part)), model.encode(part)[rows])[0]
        out.append(said.float().reshape(len(part), *x.shape))
    return torch.cat(out)


def _measure_by_drawing(
    model: Model, edit: Edit, prompts: Sequence[str], config: AuditConfig, on_progress: Callable[[int, int], None]
) -> list[float]:
    """Measures damage by both models' final latents, from the same noise."""
    seeds = [config.seed + i for i in range(config.states)]
    size = max(1, choose_image_batch(model.resolution) // len(seeds))
    out: list[float] = []
    for start in range(0, len(prompts), size):
        part = [p for p in prompts[start : start + size] for _ in seeds]
        ends = []
        for strength in (0.0, config.strength):
            with edit.apply(model, strength):
                cond, empty, noise = model.encode(part), model.encode([""]), seeds * (len(part) // len(seeds))
                ends.append(model.sample(cond, empty, noise, steps=config.steps, guidance=config.guidance).x)
        error = (ends[1] - ends[0]).float().square().flatten(1).mean(dim=1)
        out += error.reshape(-1, len(seeds)).mean(dim=1).tolist()
        on_progress(len(out), len(prompts))
    return out


def rank_closeness(model: Model, words: Sequence[str], targets: Sequence[str], template: str) -> list[int]:
    """The rank of each word by its distance to a target in the base's text encoder, from 1 for the nearest."""
    centres = model.encode([template.replace("{}", t) for t in targets]).flatten()
    pieces = [words[i : i + 256] for i in range(0, len(words), 256)]
    table = [model.encode([template.replace("{}", w) for w in piece]).flatten() for piece in pieces]
    far = torch.stack([torch.cat([measure_distances(part, centre).cpu() for part in table]) for centre in centres])
    nearest = far.min(dim=0).values
    return torch.searchsorted(nearest.sort().values, nearest, right=True).tolist()


def mark_near_targets(
    words: Sequence[str], places: Sequence[int], targets: Sequence[str], share: float, known: World | None
) -> list[bool]:
    """Which words may be other names of a target: its names in the world, or the nearest words by their embedding."""
    own = known.spell_names(words) if known else words
    calls = [known.find_thing(t) for t in targets if t in known.names] if known else []
    foreign = {fold_name(name) for thing in calls for name in thing.list_words("translations")}
    return [
        place <= share * len(words) or name in targets or fold_name(word) in foreign
        for word, name, place in zip(words, own, places, strict=True)
    ]


def _require_words(words: Sequence[str], config: AuditConfig) -> None:
    if len(words) < config.worst + config.controls:
        raise ValueError(
            f"{write_count(len(words), 'word')} to search, but {config.worst} of the worst and "
            f"{write_count(config.controls, 'other')} to draw; give more words, or fewer with --worst and --controls"
        )


def _choose_words(damage: Sequence[float], config: AuditConfig) -> tuple[list[int], list[int]]:
    """The places of all words by falling damage, and of those that are drawn: the worst, then random others."""
    ranked = sorted(range(len(damage)), key=lambda i: (-damage[i], i))
    others = random.Random(f"audit/{config.seed}").sample(ranked[config.worst :], config.controls)
    return ranked, [*ranked[: config.worst], *sorted(others, key=ranked.index)]


def audit_edit(
    model: Model,
    edit_file: Path,
    erasure: Erasure,
    words: Sequence[str],
    scorers: Sequence[Judge],
    out: Path,
    config: AuditConfig = AuditConfig(),
    known: World | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Searches the words, draws the worst and some at random, judges them, and writes audit.json, audit.png, pictures.

    Args:
        model: the untouched base.
        edit_file: the edit.
        erasure: what the edit erases.
        words: the vocabulary, without the targets.
        scorers: judges of objects, which judge the words that are things of `known`, and CLIPs, which judge all words;
            other scorers are not used.
        out: the folder for all files; pictures that are there already are not drawn again.
        config: the settings of the search and of the drawing.
        known: the things that the model's judges know.
        progress: called with a stage's name, what is done, and the total.

    Raises:
        ValueError: there are too few words, or the edit is of another base.
        Unmeasured: a scorer fails for every picture; this is raised before the search.
    """
    on_progress = progress or (lambda stage, done, total: None)
    edit, sha256 = Edit.load(edit_file), hash_file(edit_file)
    edit.check(model)
    _require_words(words, config)
    asked = [s for s in scorers if s.question in ("object", "match")]
    first = [row for word in words for row in build_rows(word, config.template, 1, config.seed, known)]
    try_scorers(asked, first, model.resolution, out / "scores")
    damage = search_damage(model, edit, words, config, lambda i, n: on_progress("searching", i, n))
    targets = known.expand(erasure.targets) if known else erasure.targets
    places = rank_closeness(model, words, targets, config.template)
    marked = mark_near_targets(words, places, targets, config.near, known)
    ranked, drawn = _choose_words(damage, config)
    rows = [row for i in drawn for row in build_rows(words[i], config.template, config.count, config.seed, known)]
    drawings = Drawings.of(model, Settings(config.steps, config.guidance, config.strength), sha256)
    shown = draw_and_judge(model, edit, rows, drawings, asked, out, on_progress)
    findings = tuple(
        AuditedWord(
            word=words[i],
            part="worst" if place < config.worst else "control",
            rank=ranked.index(i) + 1,
            damage=damage[i],
            closeness=places[i],
            near=marked[i],
            **shown.collect_facts(words[i]),
        )
        for place, i in enumerate(drawn)
    )
    paths = find_text_paths(model, edit)
    record = Audit(
        format="efface-audit",
        version=FORMAT_VERSION,
        targets=targets,
        method=str(edit.meta.get("method", "unknown")),
        measure="drawing" if edit.meta.get("guide") else "prediction",
        look=asdict(config),
        drawing=shown.drawing,
        scorers={s.name: describe_scorer(s) for s in asked},
        findings=findings,
        worst=average_over_words([f for f in findings if f.part == "worst"]),
        controls=average_over_words([f for f in findings if f.part == "control"]) if config.controls else None,
        ranking=tuple(Searched(word=words[i], damage=damage[i]) for i in ranked),
        text_paths=paths,
        open_paths=tuple(name_open_paths(paths)),
    )
    write_whole(out / "audit.png", draw_sheet(findings, out))
    return write_sealed(out / "audit.json", record)
