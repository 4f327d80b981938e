"""The things, styles and backgrounds that a model can draw, from its `world.json` or a suite's TOML file."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..catalog import did_you_mean
from ..concept import fold_name
from ..files.structured import read_json, refusing
from ..functional.words import ends_alike, split_label

BUNDLED = Path(__file__).parent.parent / "bundled" / "glyphs"
UMBRELLA = ("unsafe", "weapons")
"""Words that stand for every thing listed as unsafe."""
"""Neighbours of a thing by CLIP, where its world ranks the others."""


@dataclass(frozen=True)
class Thing:
    name: str
    group: str
    synonyms: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    description: str = ""
    translations: tuple[str, ...] = ()

    def list_words(self, words: str) -> tuple[str, ...]:
        """The words for it: its "name", "synonyms", "translations" (other than its name) or "description"."""
        if words == "translations":
            foreign = dict.fromkeys(t.lower() for t in self.translations)
            return tuple(t for t in foreign if t not in (self.name, *self.synonyms))
        if words == "synonyms":
            return self.synonyms
        return tuple(w for w in ((self.description if words == "description" else self.name),) if w)


@dataclass(frozen=True)
class World:
    """The things, styles and backgrounds that a model can draw.

    `held_out` are the (thing, style) cells that a glyphs U-Net never saw; `vocabulary` are the things in which a
    fitting may search, on which it may be tuned, or which it may keep: the other half is not used before the
    evaluation.
    """

    things: tuple[Thing, ...]
    styles: tuple[str, ...]
    backgrounds: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    unsafe: tuple[str, ...] = ()
    vocabulary: frozenset[str] = frozenset()
    held_out: frozenset[tuple[str, str]] = frozenset()
    pairs: bool = True
    """Whether the model learned scenes of two things; otherwise suites have no rows that ask for two."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(t.name for t in self.things)

    def find_thing(self, name: str) -> Thing:
        for thing in self.things:
            if thing.name == name:
                return thing
        raise ValueError(f"the model draws no thing {name!r}{did_you_mean(name, self.names)}")

    def spell_names(self, words: Iterable[str]) -> tuple[str, ...]:
        """The words in this world's spelling, if they are a name of a thing or style; other words are unchanged."""
        own = {n: t.name for t in self.things for word in (*t.synonyms, t.name) for n in split_label(word)}
        own = {n: style for style in self.styles for n in split_label(style)} | own
        return tuple(self._spell_name(word, own) for word in words)

    def names_all(self, words: Iterable[str]) -> bool:
        """Whether each of these words is a name of a thing or style in this world."""
        return all(own in (*self.names, *self.styles) for own in self.spell_names(words))

    def _spell_name(self, word: str, own: Mapping[str, str]) -> str:
        if word in self.names or word in self.styles:
            return word
        alike = [s for s in self.styles if ends_alike(word, s)]
        return next((own[n] for n in split_label(word) if n in own), alike[0] if len(alike) == 1 else word)

    def list_near(self, targets: Sequence[str]) -> tuple[str, ...]:
        """The neighbours of the targets, without the targets, as the world lists them: things that look similar."""
        named = (self.find_thing(t).near for t in targets)
        wanted = dict.fromkeys(n for names in named for n in names)
        return tuple(n for n in wanted if n in self.names and n not in targets)

    def list_siblings(self, targets: Sequence[str]) -> tuple[str, ...]:
        """The things of the targets' groups, without the targets."""
        groups = {self.find_thing(t).group for t in targets} - {""}
        return tuple(t.name for t in self.things if t.group in groups and t.name not in targets)

    def expand(self, targets: Sequence[str]) -> tuple[str, ...]:
        """The targets with an umbrella word ("unsafe") replaced by the things that it covers."""
        flat = [n for t in targets for n in (self.unsafe if fold_name(t) in UMBRELLA and t not in self.names else (t,))]
        return tuple(dict.fromkeys(flat))


def locate(model: str) -> Path:
    """The folder with `world.json`, `judges/` and `clip/` that belongs to a glyphs model.

    Args:
        model: a bundled model's name, or the pipeline folder of another glyphs model, with its world.json beside it.
    """
    bundled = BUNDLED.parent / model
    folder = bundled if (bundled / "world.json").is_file() else Path(model)
    for place in (folder, folder.parent):
        if (place / "world.json").is_file():
            return place
    raise FileNotFoundError(
        f"no world.json in or beside {folder}; the glyphs suites need a model of that make: the bundled one "
        "(--model glyphs) or a folder made by workshop/glyphs"
    )


def find_judges(bundle: Path) -> Path:
    """The folder of a model's judges: its own, or that of another model beside it that its world.json names."""
    world = bundle / "world.json"
    data = read_json(world) if world.is_file() else {}
    sibling = data.get("judges") if isinstance(data, dict) else None
    if sibling is not None and not isinstance(sibling, str):
        raise ValueError(f"{world} is damaged: judges is the name of a folder beside it, not {sibling!r}")
    return bundle.parent / sibling if sibling else bundle


def load(bundle: Path) -> World:
    """Reads `bundle`/world.json; raises ValueError where it is damaged or has another form."""
    file = bundle / "world.json"
    data = read_json(file)
    with refusing(file, "no description of a world"):
        return _build_world(data)


def _build_world(data: Any) -> World:
    return World(
        things=tuple(
            Thing(
                name=t["name"],
                group=t["group"],
                synonyms=tuple(t["synonyms"]),
                near=tuple(t["near"]),
                description=t["description"],
                translations=tuple(t["translations"].values()),
            )
            for t in data["things"]
        ),
        styles=tuple(data["styles"]),
        backgrounds={name: (r, g, b) for name, (r, g, b) in data["backgrounds"].items()},
        unsafe=tuple(data["unsafe"]),
        vocabulary=frozenset(data["vocabulary"]),
        held_out=frozenset((thing, style) for thing, style in data["held_out"]),
        pairs=bool(data.get("pairs", True)),
    )
