"""Makes the rows of a suite: which prompts are drawn, from which seeds, and what must or must not be seen.

Everything depends on the suite's name and version and on the concept, so a suite has the same rows for every method,
and the prompts of a kept thing are the same whatever was erased.
"""

import dataclasses
import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..catalog import did_you_mean
from ..concept import Erasure
from .spec import GroupSpec, Row, Suite, SuiteSpec, choose_groups, read_spec
from .world import World


@dataclass(frozen=True)
class PromptScene:
    """A prompt and what it names."""

    prompt: str
    thing: str
    style: str
    background: str
    second: str


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
    """Makes a suite's rows for an erasure.

    Args:
        name: the suite's name.
        erasure: the request.
        world: the things that the model can draw.
        per_group: the number of pictures in each group, instead of the suite's own sizes.
        only: the names of the groups to make; all when empty.
        sizes: the number of pictures in single groups, by name, which overrides `per_group`.
        used: further words that fitting has used, which therefore count as seen.
        salt: another salt gives other prompts and seeds, for tuning on pictures that are never reported.

    Raises:
        ValueError: the suite, a group or a target is unknown, or the suite can't judge a target.
    """
    suite = read_spec(name)
    roles = ConceptRoles.of(suite, erasure, world, used, salt)
    asked = {group.name: group for group in choose_groups(suite, only, per_group, sizes or {})}
    made = {group.name: roles.build_rows(asked.get(group.name, group)) for group in suite.groups}
    there = tuple(group for group in suite.groups if made[group.name])
    rows = tuple(row for name in asked for row in made[name])
    return Suite(dataclasses.replace(suite, groups=there), roles.targets, rows)


@dataclass(frozen=True)
class ConceptRoles:
    """The roles of concepts in a suite: targets, neighbours, their group, seen and unseen things, kept styles."""

    suite: SuiteSpec
    world: World
    targets: tuple[str, ...]
    near: tuple[str, ...]
    siblings: tuple[str, ...]
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    styles: tuple[str, ...]
    salt: str = ""

    @staticmethod
    def of(
        suite: SuiteSpec, erasure: Erasure, world: World, used: Sequence[str] = (), salt: str = ""
    ) -> "ConceptRoles":
        targets = tuple(dict.fromkeys(world.spell_names(world.expand(erasure.targets))))
        styled = suite.targets == "styles"
        known = world.styles if styled else world.names
        for target in targets:
            if target not in known:
                raise ValueError(f"suite {suite.name} can't judge {target!r}{did_you_mean(target, known)}")
        for target in targets:
            if suite.targets == "unsafe" and target not in world.unsafe:
                known = ", ".join(world.unsafe)
                raise ValueError(f"suite {suite.name} judges {known}, not {target!r}; use glyphs-objects for that")
        near = () if styled else world.list_near(targets)
        apart = any(g.of == "siblings" for g in suite.groups)
        siblings = tuple(n for n in world.list_siblings(targets) if n not in near) if apart else ()
        rest = [n for n in world.names if n not in (*targets, *near, *siblings)]
        touched = world.vocabulary | set(world.spell_names((*erasure.keep, *used)))
        return ConceptRoles(
            suite=suite,
            world=world,
            targets=targets,
            near=near,
            siblings=siblings,
            seen=tuple(n for n in rest if n in touched),
            unseen=tuple(n for n in rest if n not in touched),
            styles=tuple(s for s in world.styles if s not in targets),
            salt=salt,
        )

    def build_rows(self, group: GroupSpec) -> list[Row]:
        """The rows of a group, spread evenly over its concepts; a group without a concept has none."""
        concepts = [c for c in getattr(self, group.of) if self._list_words(group, c)]
        random.Random(f"{self.suite.name}/{self.suite.version}/{group.name}").shuffle(concepts)
        size = group.size * len(concepts) if group.each else group.size
        concepts = concepts[:size]
        out = []
        for i, concept in enumerate(concepts):
            count = size // len(concepts) + (i < size % len(concepts))
            out += self._build_concept_rows(group, concept, count)
        return out

    def _list_words(self, group: GroupSpec, concept: str) -> tuple[str, ...]:
        """The words of the group for a concept; a style has its name."""
        return self.world.find_thing(concept).list_words(group.words) if concept in self.world.names else (concept,)

    def _build_concept_rows(self, group: GroupSpec, concept: str, count: int) -> list[Row]:
        """`count` rows about one concept, or none where nothing can be beside it.

        Prompts are repeated, with other seeds, only when there are no others left.
        """
        words = "" if group.words == "name" else group.words
        rng = random.Random(f"{self.suite.name}/{self.suite.version}/{concept}/{group.second}{words}{self.salt}")
        scenes = interleave(self._list_scenes(group, concept, rng), rng)
        out = []
        for i in range(count if scenes else 0):
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

    def _list_scenes(self, group: GroupSpec, concept: str, rng: random.Random) -> list[PromptScene]:
        """All prompts for a concept: words, style, background and a second thing."""
        world = self.world
        if concept in world.styles and concept not in world.names:
            cells = [(thing, thing, concept) for thing in world.names]
        else:
            cells = [
                (word, concept, style) for word in self._list_words(group, concept) for style in ("", *self.styles)
            ]
        cells = [c for c in cells if (c[1], c[2]) not in world.held_out]
        told = "told_" if group.words == "description" else ""
        out = []
        for word, thing, style in cells:
            partners = self._list_partners(group, thing, style)
            for phrase in self.suite.templates[told + ("styled" if style else "plain")]:
                for background, ground in self._list_backgrounds():
                    if group.second and not partners:
                        continue
                    second = rng.choice(partners) if partners else ""
                    noun = self._join_words([word, second] if rng.random() < 0.5 else [second, word])
                    prompt = fix_articles(phrase.format(noun, style=style) + ground)
                    out.append(PromptScene(prompt, thing, style, background, second))
        return out

    def _list_partners(self, group: GroupSpec, thing: str, style: str) -> list[str]:
        """The things that may be beside a thing in a style; none in a world or a group whose rows show one thing."""
        others = getattr(self, group.second) if group.second and self.world.pairs else ()
        return [n for n in others if n != thing and (n, style) not in self.world.held_out]

    def _join_words(self, words: list[str]) -> str:
        """One word as it is, or two words joined; empty ones are dropped."""
        named = [w for w in words if w]
        return named[0] if len(named) == 1 else self.suite.templates["beside"][0].format(*named)

    def _list_backgrounds(self) -> list[tuple[str, str]]:
        """No background, and each named one in each wording."""
        named = [(b, g.format(b)) for b in self.world.backgrounds for g in self.suite.templates["grounds"]]
        return [("", ""), *named]


def spread(rows: Sequence[Row], count: int) -> list[Row]:
    """At most `count` of the rows, at even distances from the first to the last, in their order."""
    if len(rows) <= count:
        return list(rows)
    return [rows[i * len(rows) // count] for i in range(count)]


def interleave(scenes: list[PromptScene], rng: random.Random) -> list[PromptScene]:
    """Shuffles scenes so that any first few have a style, and a background, in half of the cases.

    The kind that comes first is drawn at random, so that of many concepts with few rows each, some have a style.
    """
    kinds: dict[tuple[bool, bool], list[PromptScene]] = {}
    for scene in scenes:
        kinds.setdefault((bool(scene.style), bool(scene.background)), []).append(scene)
    for kind in kinds.values():
        rng.shuffle(kind)
    order = list(kinds.values())
    rng.shuffle(order)
    turns = itertools.zip_longest(*order)
    return [scene for turn in turns for scene in turn if scene is not None]


def fix_articles(text: str) -> str:
    """ "a apple" becomes "an apple"."""
    words = text.split(" ")
    pairs = zip(words, [*words[1:], ""], strict=True)
    return " ".join("an" if w == "a" and after[:1] in tuple("aeiou") else w for w, after in pairs)
