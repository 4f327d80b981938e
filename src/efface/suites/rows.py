"""A suite made into rows: which prompts are drawn, from which seeds, and what must or must not be seen.

Everything is decided by the suite's name and version and by the concept, so the same suite asks the same of every
method, and a kept thing is asked for in the same words whatever was erased.
"""

import dataclasses
import itertools
import random
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..concept import Erasure
from .world import World, did_you_mean

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """One picture to draw and what is asked of it."""

    id: str
    prompt: str
    seed: int
    group: str
    role: str
    """"erase": the concept must not be seen; "keep": it must."""
    asks: str
    """Which judges answer: "object" or "style"."""
    concept: str
    """What the row is about: a thing or a style. Rows of one concept are not independent evidence."""
    counts: tuple[str, ...]
    """The labels that count as showing it."""
    thing: str = ""
    style: str = ""
    background: str = ""
    second: str = ""
    """The other thing in the picture, where two are named."""


@dataclass(frozen=True)
class Scene:
    """A prompt and what it names."""

    prompt: str
    thing: str
    style: str
    background: str
    second: str


@dataclass(frozen=True)
class GroupSpec:
    """A group of rows, as a suite's toml describes it."""

    name: str
    of: str
    role: str
    asks: str
    size: int
    title: str
    second: str = ""
    counts: str = "own"
    per_target: bool = False


@dataclass(frozen=True)
class SuiteSpec:
    """What a suite's toml says."""

    name: str
    version: str
    licence: str
    source: str
    about: str
    targets: str
    groups: tuple[GroupSpec, ...]
    templates: Mapping[str, Sequence[str]] = dataclasses.field(repr=False)


@dataclass(frozen=True)
class Suite:
    """A suite for one erasure: its rows, in the order in which they are drawn."""

    spec: SuiteSpec
    targets: tuple[str, ...]
    rows: tuple[Row, ...]

    def group(self, name: str) -> tuple[Row, ...]:
        return tuple(r for r in self.rows if r.group == name)


def names() -> list[str]:
    return sorted(p.stem for p in HERE.glob("*.toml"))


def spec(name: str) -> SuiteSpec:
    """Read one suite's toml."""
    if name not in names():
        raise ValueError(f"there is no suite {name!r}{did_you_mean(name, names())}")
    data = tomllib.loads((HERE / f"{name}.toml").read_text(encoding="utf-8"))
    groups = tuple(GroupSpec(**g) for g in data.pop("groups"))
    return SuiteSpec(**data, groups=groups)


def describe() -> list[dict[str, str]]:
    """Name, version, licence and purpose of every suite."""
    fields = ("name", "version", "licence", "source", "about")
    return [{f: getattr(spec(name), f) for f in fields} for name in names()]


def build(
    name: str,
    erasure: Erasure,
    world: World,
    per_group: int | None = None,
    only: Sequence[str] = (),
    sizes: Mapping[str, int] | None = None,
    used: Sequence[str] = (),
    salt: str = "",
) -> Suite:
    """Make a suite's rows for what is erased.

    Args:
        per_group: pictures in each group instead of the suite's own sizes.
        only: names of the groups to make; all when empty.
        sizes: pictures in single groups, by name; goes before `per_group`.
        used: further words that fitting has used, which therefore count as seen.
        salt: another one chooses other prompts and seeds, for tuning on pictures that are never reported.

    Raises:
        ValueError: an unknown suite, group or target, or one that the suite can't judge.
    """
    suite = spec(name)
    known = [g.name for g in suite.groups]
    for group in (*only, *(sizes or {})):
        if group not in known:
            raise ValueError(f"suite {name} has no group {group!r}; its groups are {', '.join(known)}")
    people = Cast.of(suite, erasure, world, used, salt)
    rows: list[Row] = []
    for group in suite.groups:
        if only and group.name not in only:
            continue
        size = (sizes or {}).get(group.name, per_group or group.size)
        if size < 1:
            raise ValueError(f"group {group.name} was given {size} pictures; it needs at least 1")
        size *= len(erasure.targets) if group.per_target else 1
        rows += people.rows(group, size)
    return Suite(suite, people.targets, tuple(rows))


@dataclass(frozen=True)
class Cast:
    """Who plays which part in a suite: targets, neighbours, seen and unseen things, kept styles."""

    suite: SuiteSpec
    world: World
    targets: tuple[str, ...]
    near: tuple[str, ...]
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    styles: tuple[str, ...]
    salt: str = ""

    @staticmethod
    def of(suite: SuiteSpec, erasure: Erasure, world: World, used: Sequence[str] = (), salt: str = "") -> "Cast":
        targets = world.expand(erasure.targets)
        styled = suite.targets == "styles"
        known = world.styles if styled else world.names
        for target in targets:
            if target not in known:
                raise ValueError(f"suite {suite.name} can't judge {target!r}{did_you_mean(target, known)}")
        for target in targets:
            if suite.targets == "unsafe" and target not in world.unsafe:
                known = ", ".join(world.unsafe)
                raise ValueError(f"suite {suite.name} judges {known}, not {target!r}; use glyphs-objects for that")
        near = () if styled else world.near(targets)
        rest = [n for n in world.names if n not in targets and n not in near]
        touched = world.vocabulary | set(erasure.keep) | set(used)
        return Cast(
            suite=suite,
            world=world,
            targets=targets,
            near=near,
            seen=tuple(n for n in rest if n in touched),
            unseen=tuple(n for n in rest if n not in touched),
            styles=tuple(s for s in world.styles if s not in targets),
            salt=salt,
        )

    def rows(self, group: GroupSpec, size: int) -> list[Row]:
        """`size` rows of a group, spread evenly over its concepts; none where it has no concept."""
        part = "targets" if group.of == "synonyms" else group.of
        concepts = [c for c in getattr(self, part) if group.of != "synonyms" or self.world.thing(c).synonyms]
        random.Random(f"{self.suite.name}/{self.suite.version}/{group.name}").shuffle(concepts)
        concepts = concepts[:size]
        out = []
        for i, concept in enumerate(concepts):
            count = size // len(concepts) + (i < size % len(concepts))
            out += self._concept(group, concept, count)
        return out

    def _concept(self, group: GroupSpec, concept: str, count: int) -> list[Row]:
        """`count` rows about one concept; prompts repeat, with other seeds, only when there are no others left."""
        synonym = "synonyms" if group.of == "synonyms" else ""
        rng = random.Random(f"{self.suite.name}/{self.suite.version}/{concept}/{group.second}{synonym}{self.salt}")
        scenes = interleave(self._scenes(group, concept, rng), rng)
        out = []
        for i in range(count):
            scene = scenes[i % len(scenes)]
            about = scene.thing if group.asks == "object" else concept
            row = Row(
                id=f"{group.name}/{concept}/{i:04d}",
                prompt=scene.prompt,
                seed=rng.randrange(2**31),
                group=group.name,
                role=group.role,
                asks=group.asks,
                concept=about,
                counts=self.targets if group.counts == "any" else (about,),
                thing=scene.thing,
                style=scene.style,
                background=scene.background,
                second=scene.second,
            )
            out.append(row)
        return out

    def _scenes(self, group: GroupSpec, concept: str, rng: random.Random) -> list[Scene]:
        """Every way to ask for a concept: words, style, background and a second thing."""
        world = self.world
        if concept in world.styles and concept not in world.names:
            cells = [(thing, thing, concept) for thing in world.names]
        else:
            words = world.thing(concept).synonyms if group.of == "synonyms" else (concept,)
            cells = [(word, concept, style) for word in words for style in ("", *self.styles)]
        cells = [c for c in cells if (c[1], c[2]) not in world.held_out]
        out = []
        for word, thing, style in cells:
            partners = self._partners(group, thing, style)
            for phrase in self.suite.templates["styled" if style else "plain"]:
                for background, ground in self._grounds():
                    if group.second and not partners:
                        continue
                    second = rng.choice(partners) if partners else ""
                    noun = self._noun([word, second] if rng.random() < 0.5 else [second, word])
                    prompt = articles(phrase.format(noun, style=style) + ground)
                    out.append(Scene(prompt, thing, style, background, second))
        return out

    def _partners(self, group: GroupSpec, thing: str, style: str) -> list[str]:
        """Who may stand beside a thing in a style; nobody where the group's rows show one thing only."""
        others = getattr(self, group.second) if group.second else ()
        return [n for n in others if n != thing and (n, style) not in self.world.held_out]

    def _noun(self, words: list[str]) -> str:
        """One word as it is, two side by side; an empty one is no word."""
        named = [w for w in words if w]
        return named[0] if len(named) == 1 else self.suite.templates["beside"][0].format(*named)

    def _grounds(self) -> list[tuple[str, str]]:
        """No background, and each named one in each wording."""
        named = [(b, g.format(b)) for b in self.world.backgrounds for g in self.suite.templates["grounds"]]
        return [("", ""), *named]


def interleave(scenes: list[Scene], rng: random.Random) -> list[Scene]:
    """Shuffle so that every beginning has as many scenes with a style as without, and likewise with a background."""
    kinds: dict[tuple[bool, bool], list[Scene]] = {}
    for scene in scenes:
        kinds.setdefault((bool(scene.style), bool(scene.background)), []).append(scene)
    for kind in kinds.values():
        rng.shuffle(kind)
    turns = itertools.zip_longest(*kinds.values())
    return [scene for turn in turns for scene in turn if scene is not None]


def articles(text: str) -> str:
    """ "a apple" becomes "an apple"."""
    words = text.split(" ")
    pairs = zip(words, [*words[1:], ""], strict=True)
    return " ".join("an" if w == "a" and after[:1] in tuple("aeiou") else w for w, after in pairs)
