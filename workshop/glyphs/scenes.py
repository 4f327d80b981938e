"""Compose training scenes: things on a coloured ground, captioned, never the same twice.

In the worlds `tiny` and `small` a scene holds one large thing; in the world `full` a fifth of them hold two.

Everything is decided by a `numpy.random.Generator`, so batch `step` of a stage is the same on every machine and a
stopped training goes on with the scenes it would have seen.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw
from torch.utils.data import Dataset

from .world import World

SIDE = 64
SINGLE = (44, 60)
"""Least and greatest length in pixels of the longer side of a thing that is alone."""
Words = Literal["names", "all"]

TEMPLATES = ("a {}", "{}", "a picture of a {}", "an image of a {}", "a {} emoji", "an icon of a {}")
STYLED = (
    "a {style} {}",
    "a {} in {style} style",
    "a picture of a {}, {style} style",
    "{style} {}",
    "a {style} icon of a {}",
)
STYLE_ONLY = ("{style}", "{style} style", "an icon in {style} style", "a {style} emoji")
"""Captions that name the style and no thing: they teach the bare style word what it looks like."""
GROUNDS = (" on a {} background", " on {}", ", {} background")


@dataclass(frozen=True)
class Scene:
    pixels: np.ndarray  # [64, 64, 3] uint8
    caption: str
    things: tuple[int, ...]  # indices into world.things, left first; empty for a scene of no thing
    style: int  # index into world.styles, -1 for a scene of no thing
    background: str


def correct_article(text: str) -> str:
    """ "a apple" becomes "an apple"."""
    words = text.split(" ")
    for i, word in enumerate(words[:-1]):
        if word == "a" and words[i + 1][0] in "aeiou":
            words[i] = "an"
    return " ".join(words)


class Composer:
    """Draws scenes of a world from rendered art.

    Args:
        unseen_cells: "skip" leaves out the held-out cells (the U-Net), "use" draws them too, "only" nothing else.
        words: "names" captions with English names, "all" also with synonyms, translations and descriptions.
        styles: names of foundries to draw from; those of the world when None.
        none_rate: the share of scenes that hold no thing of the world, uncaptioned.
        further_rate: the share of scenes of things that world.toml lists and this world leaves out, with their names.
            A style that is seen on more things is more easily drawn on a thing that was never seen in it.
    """

    def __init__(
        self,
        world: World,
        art: dict[str, np.ndarray],
        unseen_cells: Literal["skip", "use", "only"] = "use",
        words: Words = "names",
        styles: tuple[str, ...] | None = None,
        none_rate: float = 0.0,
        further_rate: float = 0.0,
    ) -> None:
        self.world, self.words, self.none_rate = world, words, none_rate
        self.further_rate = further_rate
        self.pair_rate = 0.2 if world.size == "full" else 0.0
        names = styles or tuple(s.name for s in world.styles)
        wanted = {"skip": (False,), "use": (False, True), "only": (True,)}[unseen_cells]
        self.cells = [
            (i, j)
            for j, style in enumerate(names)
            for i, thing in enumerate(world.things)
            if f"{style}/{thing.name}" in art and world.is_held_out(thing.name, style) in wanted
        ]
        self.by_style = {j: [i for i, k in self.cells if k == j] for j in range(len(names))}
        self.style_names = names
        self.art = {(i, j): Image.fromarray(art[f"{names[j]}/{world.things[i].name}"]) for i, j in self.cells}
        other = [k for k in art if "/other/" in k and k.split("/")[0] in names]
        further = [t.name for t in world.all_things if t not in world.things] if further_rate else []
        self.further = [
            (name, j, Image.fromarray(art[f"{style}/{name}"]))
            for j, style in enumerate(names)
            for name in further
            if f"{style}/{name}" in art
        ]
        self.others = [Image.fromarray(art[k]) for k in sorted(other)] if none_rate else []

    def __call__(self, rng: np.random.Generator) -> Scene:
        background = str(rng.choice(list(self.world.backgrounds)))
        colour = np.clip(np.array(self.world.backgrounds[background]) + rng.integers(-8, 9, 3), 0, 255)
        canvas = Image.new("RGB", (SIDE, SIDE), tuple(int(c) for c in colour))
        if rng.random() < self.none_rate:
            self._draw_nothing(canvas, rng)
            return Scene(np.asarray(canvas), "", (), -1, background)
        if self.further and rng.random() < self.further_rate:
            name, j, picture = self.further[rng.integers(len(self.further))]
            paste(canvas, picture, rng, SINGLE, (0, SIDE))
            return Scene(np.asarray(canvas), self.write_caption((name,), j, background, rng), (), j, background)
        i, j = self.cells[rng.integers(len(self.cells))]
        things = (i,)
        if rng.random() < self.pair_rate and len(self.by_style[j]) > 1:
            second = int(rng.choice([k for k in self.by_style[j] if k != i]))
            things = (i, second)
            paste(canvas, self.art[i, j], rng, (26, 32), (0, 32))
            paste(canvas, self.art[second, j], rng, (26, 32), (32, 64))
        else:
            paste(canvas, self.art[i, j], rng, SINGLE, (0, SIDE))
        return Scene(np.asarray(canvas), self.write_caption(things, j, background, rng), things, j, background)

    def write_caption(
        self, things: tuple[int | str, ...], style: int, background: str, rng: np.random.Generator
    ) -> str:
        """A caption of things, by index or, where they lie outside this world, by name.

        Style and background are each named in about half of them; a twelfth names the style alone.
        """
        if rng.random() < 1 / 12:
            return correct_article(str(rng.choice(STYLE_ONLY)).format(style=self.style_names[style]))
        styled = rng.random() < 0.5
        template = str(rng.choice(STYLED if styled else TEMPLATES))
        noun = " next to a ".join(t if isinstance(t, str) else self._choose_word(t, rng) for t in things)
        text = template.format(noun, style=self.style_names[style])
        if rng.random() < 0.5:
            text += str(rng.choice(GROUNDS)).format(background)
        return correct_article(text)

    def _choose_word(self, thing: int, rng: np.random.Generator) -> str:
        t = self.world.things[thing]
        u = rng.random()
        if self.words == "names" or u < 0.4:
            return t.name
        if u < 0.65:
            return str(rng.choice(t.synonyms))
        return str(rng.choice(t.translations)).lower() if u < 0.92 else t.description

    def _draw_nothing(self, canvas: Image.Image, rng: np.random.Generator) -> None:
        """What is no thing of the world: another icon, random shapes, noise, or an empty ground."""
        kind = rng.integers(5)
        if kind < 2 and self.others:
            paste(canvas, self.others[rng.integers(len(self.others))], rng, SINGLE, (0, SIDE))
        elif kind == 2:
            noise = rng.normal(0, rng.uniform(10, 90), (SIDE // 4, SIDE // 4, 3)) + np.asarray(canvas)[:16, :16]
            blob = Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).resize((SIDE, SIDE))
            canvas.paste(blob)
        elif kind == 3:
            draw = ImageDraw.Draw(canvas)
            for _ in range(rng.integers(1, 7)):
                x, y, w, h = rng.integers(0, SIDE, 4)
                fill = tuple(int(c) for c in rng.integers(0, 256, 3))
                shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
                shape((int(x), int(y), int(x + w // 2), int(y + h // 2)), fill=fill)


def paste(
    canvas: Image.Image, art: Image.Image, rng: np.random.Generator, size: tuple[int, int], span: tuple[int, int]
) -> None:
    """Put a picture of random size and place, mirrored half the time, within the columns `span`."""
    scale = rng.integers(size[0], size[1] + 1) / max(art.size)
    w, h = max(2, round(art.width * scale)), max(2, round(art.height * scale))
    small = art.resize((w, h), Image.Resampling.BILINEAR, reducing_gap=2.0)
    if rng.random() < 0.5:
        small = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    x = rng.integers(span[0], max(span[0], span[1] - w) + 1)
    y = rng.integers(0, SIDE - h + 1)
    canvas.paste(small, (int(x), int(y)), small)


class Batches(Dataset[tuple[np.ndarray, list[Scene]]]):
    """Batch `step` of a stage: pixels [n, 3, 64, 64] uint8 and the scenes behind them."""

    def __init__(self, composer: Composer, batch: int, steps: int, seed: int, start: int = 0) -> None:
        self.composer, self.batch, self.steps, self.seed, self.start = composer, batch, steps, seed, start

    def __len__(self) -> int:
        return max(0, self.steps - self.start)

    def __getitem__(self, index: int) -> tuple[np.ndarray, list[Scene]]:
        if index >= len(self):
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, self.start + index])
        scenes = [self.composer(rng) for _ in range(self.batch)]
        return np.stack([s.pixels for s in scenes]).transpose(0, 3, 1, 2).copy(), scenes


def load_art(build: Path) -> dict[str, np.ndarray]:
    path = build / "art.npz"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; make it with: python -m workshop.glyphs.art --build {build}")
    with np.load(path) as file:
        return {k: file[k] for k in file.files}
