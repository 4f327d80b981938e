"""The record of an audit, `audit.json`: it has a version and is validated."""

from functools import partial
from pathlib import Path
from typing import Any, Literal

from ..files.missing import require_in
from ..plurals import write_count
from .report import Drawing, Estimate, Measure, Part
from .sealed import parse_sealed, read_sealed

FORMAT_VERSION = 1
SHOWN = 5
"""Number of words that the short form of an audit names."""
ENOUGH = 5
"""The least number of a word's pictures for an interval: resampling fewer says nothing about further pictures."""


class ImagePair(Part):
    """A picture before and after, from one seed; the paths are relative to the audit's folder."""

    seed: int
    base: str
    edited: str


class AuditedWord(Part):
    """A word that was drawn."""

    word: str
    part: Literal["worst", "control"]
    """Whether it is among the most damaged words, or was taken at random."""
    rank: int
    """Its rank in the search; the most damaged word has 1."""
    damage: float
    closeness: int
    """Its rank by distance to a target in the base's text encoder; the nearest word has 1."""
    near: bool
    """Whether it may be another name of the target, so that its damage may be wanted."""
    thing: str
    """The thing of the model's world that it names, which judges then look for; "" for none."""
    change: Estimate
    """The mean absolute difference of the pictures, as a share of the range."""
    measures: tuple[Measure, ...]
    """Values before and after, with the loss: "psr1" where judges know the word, "clip" where there is a CLIP."""
    pictures: tuple[ImagePair, ...]

    @property
    def lost(self) -> bool | None:
        """Whether something is certainly lost: whether the interval of a drop, of judges or CLIP, is above 0.

        None where there was no judge, or where there are fewer pictures than an interval needs.
        """
        drops = [m.drop for m in self.measures if m.drop is not None and m.drop.clusters >= ENOUGH]
        return any(drop.low > 0 for drop in drops) if drops else None


class Searched(Part):
    """A word and its damage."""

    word: str
    damage: float


class TextPath(Part):
    """A path of the prompt into the network."""

    role: str
    """"cross", "embedder", "pooled", or a text encoder by its part of the pipeline ("text encoder" for all of them in
    files of earlier versions)."""
    reads: str
    """What its weights do, in words."""
    weights: int
    """The number of its weights."""
    changed: int
    """The number of these weights that the edit changes."""
    feeds: tuple[str, ...] = ()
    """For a text encoder: whether the prompt's "tokens", its "pooled" embedding, or both come from it."""


class Audit(Part):
    """`audit.json`."""

    format: Literal["efface-audit"]
    version: int
    targets: tuple[str, ...]
    method: str
    measure: Literal["prediction", "drawing"]
    """How the search measured damage: by predictions, or by drawing, for a guide."""
    look: dict[str, Any]
    """The settings of the search and of the drawing."""
    drawing: Drawing
    scorers: dict[str, dict[str, str]]
    findings: tuple[AuditedWord, ...]
    worst: Estimate
    """The change of the worst words' pictures; the interval resamples words."""
    controls: Estimate | None
    """The change of the random words' pictures."""
    ranking: tuple[Searched, ...]
    """All words of the search, the most damaged first."""
    text_paths: tuple[TextPath, ...] = ()
    """The prompt's paths into the network; empty for a guide, and in files of earlier versions."""
    open_paths: tuple[str, ...] = ()
    """Sentences about the paths that the edit leaves unchanged."""
    digest: str = ""
    """The sha256 of everything else in the file, as JSON with sorted keys; "" in files of earlier versions."""

    def __repr__(self) -> str:
        worst = [found for found in self.findings if found.part == "worst"]
        words = ", ".join(f"{found.word} {found.change.shorten()}" for found in worst[:SHOWN]) or "none"
        searched = write_count(len(self.ranking), "word")
        what = f"{', '.join(self.targets)} by {self.method}; change of the worst of {searched}: {words}"
        return f"<Audit: {what}; of all worst words {self.worst.shorten()}>"


def read_audit(folder: Path) -> Audit:
    """Reads the `audit.json` of a folder.

    Raises:
        FileNotFoundError: the folder has no `audit.json`.
        ValueError: it was written by another version, was changed since, or is damaged.
    """
    path = require_in(folder, "audit.json", "give the --out of an `efface audit` that finished")
    return read_sealed(path, FORMAT_VERSION, partial(parse_sealed, Audit), "run the audit again")
