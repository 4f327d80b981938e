"""What an audit leaves: `audit.json`, versioned and validated."""

from functools import partial
from pathlib import Path
from typing import Any, Literal

from .report import Drawing, Estimate, Measure, Part
from .sealed import parse_sealed, read_sealed

FORMAT_VERSION = 1
SHOWN = 5
"""Words that the short form of an audit names."""
ENOUGH = 5
"""Pictures of a word, below which resampling them says nothing of what others would show."""


class ImagePair(Part):
    """A picture before and after, from one seed; paths within the audit's folder."""

    seed: int
    base: str
    edited: str


class AuditedWord(Part):
    """A word that was drawn."""

    word: str
    part: Literal["worst", "control"]
    """Whether the search named it, or it was taken at random."""
    rank: int
    """Its place in the search, the most damaged being 1."""
    damage: float
    closeness: int
    """Its place by distance to a target in the base's text encoder, the nearest being 1."""
    near: bool
    """Whether it may be the target by another name: its damage may be wanted."""
    thing: str
    """The thing of the model's world that it names, which judges then look for; "" for none."""
    change: Estimate
    """Mean absolute difference of the pictures, as a share of the range."""
    measures: tuple[Measure, ...]
    """"psr1" where judges know the word, "clip" where a CLIP was asked: before, after, and what was lost."""
    pictures: tuple[ImagePair, ...]

    @property
    def lost(self) -> bool | None:
        """Is something lost for sure: is the interval of a drop, of judges or CLIP, above 0?

        None where none judged, or over fewer pictures than an interval needs.
        """
        drops = [m.drop for m in self.measures if m.drop is not None and m.drop.clusters >= ENOUGH]
        return any(drop.low > 0 for drop in drops) if drops else None


class Searched(Part):
    """A word and its damage."""

    word: str
    damage: float


class TextPath(Part):
    """A way of the prompt into the network."""

    role: str
    """"cross", "embedder", "pooled", or a text encoder by its part of the pipeline ("text encoder" for all of them in
    files of earlier versions)."""
    reads: str
    """What its weights do, in words."""
    weights: int
    """How many there are."""
    changed: int
    """How many of them the edit changes."""
    feeds: tuple[str, ...] = ()
    """Of a text encoder: whether the prompt's "tokens", its "pooled" embedding, or both come from it."""


class Audit(Part):
    """`audit.json`."""

    format: Literal["efface-audit"]
    version: int
    targets: tuple[str, ...]
    method: str
    measure: Literal["prediction", "drawing"]
    """How the search measured damage: by predictions, or by drawing, for a guide."""
    look: dict[str, Any]
    """How it searched and confirmed."""
    drawing: Drawing
    scorers: dict[str, dict[str, str]]
    findings: tuple[AuditedWord, ...]
    worst: Estimate
    """Change of the worst words' pictures; the interval resamples words."""
    controls: Estimate | None
    """Of the words taken at random."""
    ranking: tuple[Searched, ...]
    """All words searched, the most damaged first."""
    text_paths: tuple[TextPath, ...] = ()
    """The prompt's ways into the network; none for a guide, and in files written before they were looked for."""
    open_paths: tuple[str, ...] = ()
    """Sentences on those that the edit leaves as they were."""
    digest: str = ""
    """sha256 of everything else in the file, as JSON with sorted keys; "" in files of earlier versions."""

    def __repr__(self) -> str:
        worst = [found for found in self.findings if found.part == "worst"]
        words = ", ".join(f"{found.word} {found.change.shorten()}" for found in worst[:SHOWN]) or "none"
        what = f"{', '.join(self.targets)} by {self.method}; change of the worst of {len(self.ranking)} words: {words}"
        return f"<Audit: {what}; of all worst words {self.worst.shorten()}>"


def read_audit(folder: Path) -> Audit:
    """Read the `audit.json` of a folder.

    Raises:
        FileNotFoundError: the folder holds none.
        ValueError: it was written by another version, was changed since, or is damaged.
    """
    path = folder / "audit.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no audit.json; give the --out of an `efface audit` that finished")
    return read_sealed(path, FORMAT_VERSION, partial(parse_sealed, Audit), "run the audit again")
