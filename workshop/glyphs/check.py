"""Measure the bundled model as its consumers load it, and write the figures and picture grids of the README."""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

import efface
from efface.functional.rates import bootstrap, cluster_means, wilson

from . import ddpm
from .scenes import Composer, correct_article, load_art
from .studio import DRAW, Studio
from .world import World, load

HERE = Path(__file__).parent


def compute_rate(hits: np.ndarray, things: Sequence[str] | None = None) -> str:
    """Share with n and a 95 % interval: Wilson's; where pictures share a thing, a bootstrap over things.

    With `things` the share is the mean over them, each weighing the same.
    """
    if things is None:
        share, (low, high) = float(np.mean(hits)), wilson(int(np.sum(hits)), len(hits))
        return f"{share:.1%} [{low:.1%}, {high:.1%}] (n {len(hits)})"
    by_thing: dict[str, list[float | None]] = {}
    for hit, thing in zip(hits, things, strict=True):
        by_thing.setdefault(thing, []).append(float(hit))
    share = float(np.mean(cluster_means(by_thing)))
    low, high = bootstrap(by_thing) or (0.0, 1.0)
    return f"{share:.1%} [{low:.1%}, {high:.1%}] (n {len(hits)}, {len(by_thing)} things)"


def find_weakest(hits: np.ndarray, things: Sequence[str]) -> str:
    """The three things that are judged to be shown least often, each with its share and n."""
    names = np.array(things)
    shares = {name: float(hits[names == name].mean()) for name in dict.fromkeys(things)}
    low = sorted(shares, key=lambda name: shares[name])[:3]
    return ", ".join(f"{name} {shares[name]:.0%} (n {int((names == name).sum())})" for name in low)


def compare_top1(judged: dict[str, np.ndarray], task: str, labels: Sequence[str]) -> dict[str, np.ndarray]:
    return {k.split("-")[1]: v[:, 0] == np.array(labels) for k, v in judged.items() if k.startswith(task)}


def draw_again(studio: Studio, names: Sequence[str], count: int = 96) -> dict[str, str]:
    """Things by name, drawn `count` times from seeds of their own: twelve pictures of each tell little of one thing."""
    rows = [name for name in names for _ in range(count)]
    hits = compare_top1(
        studio.judge(studio.draw([correct_article(f"a {name}") for name in rows], 7000)), "object", rows
    )
    chosen = {name: np.array(rows) == name for name in names}
    return {f"{name}, {judge}": compute_rate(h[mask]) for name, mask in chosen.items() for judge, h in hits.items()}


def find_ground(images: np.ndarray, world: World) -> np.ndarray:
    """The palette's name nearest to the median colour of the one-pixel border."""
    names = list(world.backgrounds)
    edge = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
    colour = np.median(edge, axis=1)[:, None]
    palette = np.array([world.backgrounds[n] for n in names])[None]
    return np.array(names)[np.square(colour - palette).sum(2).argmin(1)]


def check_cells(world: World, studio: Studio, seeds: int) -> dict[str, str]:
    """Object and style over the whole grid, seen and held-out cells apart."""
    grid = [(t.name, s.name) for t in world.things for s in world.styles] * seeds
    images = studio.draw([correct_article(f"a {style} {thing}") for thing, style in grid])
    judged = studio.judge(images)
    unseen = np.array([world.is_held_out(*c) for c in grid])
    out = {}
    for task, column in (("object", 0), ("style", 1)):
        for judge, hits in compare_top1(judged, task, [c[column] for c in grid]).items():
            things = np.array([thing for thing, _ in grid])
            out[f"{task}, seen cells, {judge}"] = compute_rate(hits[~unseen], things[~unseen])
            out[f"{task}, held-out cells, {judge}"] = compute_rate(hits[unseen], things[unseen])
    shown = [world.things[i].name for i in range(0, len(world.things), max(1, len(world.things) // 16))]
    rows = [[images[grid.index((n, s.name))] for n in shown] for s in world.styles]
    save_grid(rows, f"{studio.grids}styles.png")
    return out


def check_words(world: World, studio: Studio) -> dict[str, str]:
    """Objects without a style, on named grounds, by synonyms, in other languages and as descriptions."""
    rng = np.random.default_rng(5)
    out = {}
    asked = {
        "object without a style": draw_plain(world, 12),
        "synonyms": [(t.name, f"a {w}") for t in world.things for w in t.synonyms] * 3,
        "other languages": [(t.name, w.lower()) for t in world.things for w in t.translations] * 2,
        "descriptions": [(t.name, t.description) for t in world.things] * 4,
    }
    for what, rows in asked.items():
        out |= count_recognised(studio, what, rows, ranked=what == "object without a style")
    names = [t.name for t in world.things]
    names = names * -(-192 // len(names))
    grounds = list(rng.choice(list(world.backgrounds), len(names)))
    images = studio.draw(
        [correct_article(f"a {n} on a {g} background") for n, g in zip(names, grounds, strict=True)], 2000
    )
    out["named background kept"] = compute_rate(find_ground(images, world) == np.array(grounds))
    save_grid([list(images[i * 16 : (i + 1) * 16]) for i in range(4)], "backgrounds.png")
    return out | (check_pairs(world, studio, rng) if world.size == "full" else {})


def draw_plain(world: World, count: int) -> list[tuple[str, str]]:
    """Each thing `count` times, and the prompt that names it alone."""
    return [(t.name, f"a {t.name}") for t in world.things for _ in range(count)]


def count_recognised(studio: Studio, what: str, rows: Sequence[tuple[str, str]], ranked: bool) -> dict[str, str]:
    """How often each judge sees the thing of each (thing, prompt), and where `ranked`, both, and the weakest things."""
    shown = [n for n, _ in rows]
    hits = compare_top1(
        studio.judge(studio.draw([correct_article(p) for _, p in rows], first_seed=1000)), "object", shown
    )
    out = {f"{what}, {j}": compute_rate(h, shown) for j, h in hits.items()}
    if ranked:
        out |= {f"{what}, both judges": compute_rate(np.all(list(hits.values()), axis=0), shown)}
        out |= {f"weakest things without a style, {j}": find_weakest(h, shown) for j, h in hits.items()}
    return out


def check_pairs(world: World, studio: Studio, rng: np.random.Generator) -> dict[str, str]:
    """How often both of two things that a prompt names are seen; only the world `full` has scenes of two."""
    names, out = [t.name for t in world.things], {}
    asked = [tuple(rng.choice(sorted(set(names)), 2, replace=False)) for _ in range(200)]
    images = studio.draw([correct_article(f"a {a} next to a {b}") for a, b in asked], 3000)
    for name, ranked in studio.judge(images).items():
        if name.startswith("object"):
            both = [set(p) == set(r[:2]) for p, r in zip(asked, ranked, strict=True)]
            out[f"both of two things, {name.split('-')[1]}"] = compute_rate(np.array(both))
    save_grid([list(images[i * 16 : (i + 1) * 16]) for i in range(3)], "pairs.png")
    return out


def check_autoencoder(studio: Studio, world: World, build: Path) -> dict[str, str]:
    """The mean squared error of fresh compositions that come back from the autoencoder, in dB; the judges on these."""
    composer, rng = Composer(world, load_art(build)), np.random.default_rng(97)
    scenes = [composer(rng) for _ in range(1000)]
    pixels = np.stack([s.pixels for s in scenes])
    x = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()).float().div(127.5).sub(1).to(studio.device)
    vae = studio.pipe.vae
    with torch.no_grad():
        back = torch.cat([vae.decode(vae.encode(part).latent_dist.mode()).sample for part in x.split(50)])
    again = (back.clamp(-1, 1).add(1).mul(127.5)).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    error = np.square((again.astype(float) - pixels) / 255).mean(axis=(1, 2, 3))
    draws = rng.choice(error, (1000, len(error))).mean(axis=1)
    low, high = -10 * np.log10(np.percentile(draws, [97.5, 2.5]))
    middle = f"{-10 * np.log10(error.mean()):.1f} dB"
    found = {"autoencoder, fresh compositions": f"{middle} [{low:.1f}, {high:.1f}] (n {len(error)})"}
    judged, shown = studio.judge(again), [world.things[s.things[0]].name for s in scenes]
    styles = [world.styles[s.style].name for s in scenes]
    for task, labels in (("object", shown), ("style", styles)):
        hits = compare_top1(judged, task, labels)
        found |= {f"judge {j}, {task}, through the autoencoder": compute_rate(h, shown) for j, h in hits.items()}
    return found


def measure_variety(world: World, studio: Studio) -> dict[str, str]:
    """Pixel distance between seeds of one prompt, beside that between prompts."""
    names = [t.name for t in world.things][:: max(1, len(world.things) // 6)]
    images = studio.draw([f"a {n}" for n in names for _ in range(16)], 4000).astype(float) / 255
    sets = images.reshape(len(names), 16, -1)
    within = np.mean([np.abs(s[i] - s[j]).mean() for s in sets for i in range(16) for j in range(i)])
    between = np.mean([np.abs(sets[a][0] - sets[b][1]).mean() for a in range(len(sets)) for b in range(a)])
    save_grid(
        [list((images.reshape(len(names), 16, 64, 64, 3)[i] * 255).astype(np.uint8)) for i in range(len(names))],
        "seeds.png",
    )
    return {"mean pixel distance, seeds of one prompt": f"{within:.3f}", "… different prompts": f"{between:.3f}"}


def check_judges(studio: Studio, build: Path) -> dict[str, str]:
    """The judges on fresh compositions, on unseen foundries and on what is no thing, in the world that they know."""
    art = load_art(build)
    labels = set(studio.judges["object-resnet"].config.id2label.values())
    (world,) = [w for w in map(load, ("tiny", "small", "full")) if {t.name for t in w.things} | {"none"} == labels]
    out = {}
    for what, styles in [("fresh compositions", None)] + [(s.name, (s.name,)) for s in world.unseen]:
        composer = Composer(world, art, styles=styles)
        rng = np.random.default_rng(99)
        scenes = [s for s in (composer(rng) for _ in range(1600)) if len(s.things) == 1][:1000]
        judged = studio.judge(np.stack([s.pixels for s in scenes]))
        shown = [world.things[s.things[0]].name for s in scenes]
        hits = compare_top1(judged, "object", shown)
        out |= {f"judge {j}, object, {what}": compute_rate(h, shown) for j, h in hits.items()}
        if styles is None:
            hits = compare_top1(judged, "style", [world.styles[s.style].name for s in scenes])
            out |= {f"judge {j}, style, {what}": compute_rate(h, shown) for j, h in hits.items()}
    composer = Composer(world, art, none_rate=1.0)
    rng = np.random.default_rng(98)
    nothing = studio.judge(np.stack([composer(rng).pixels for _ in range(1000)]))
    out |= {
        f"judge {j}, none, non-things": compute_rate(h)
        for j, h in compare_top1(nothing, "object", ["none"] * 1000).items()
    }
    return out


def check_classes(studio: Studio) -> dict[str, str]:
    """The class-conditional model as efface draws it, judged at the judges' size."""
    model, names = efface.load("glyphs-ddpm", str(studio.device)), ddpm.list_classes() * 24
    small = model.images(names, seeds=range(len(names)), batch=64)
    large = F.interpolate(small.float(), size=(64, 64), mode="bicubic", antialias=True)
    judged = studio.judge(large.clamp(0, 255).round().byte().permute(0, 2, 3, 1).cpu().numpy())
    hits = compare_top1(judged, "object", names)
    save_grid([list(small[i * 16 : (i + 1) * 16].permute(0, 2, 3, 1).cpu().numpy()) for i in range(4)], "classes.png")
    return {f"glyphs-ddpm, object, {judge}": compute_rate(h, names) for judge, h in hits.items()} | {
        f"glyphs-ddpm, weakest things, {judge}": find_weakest(h, names) for judge, h in hits.items()
    }


def measure_speed(studio: Studio) -> dict[str, str]:
    studio.draw(["a cat"])
    start = time.time()
    studio.draw(["a dog"])
    one = time.time() - start
    start = time.time()
    studio.draw(["a dog"] * 64)
    return {"seconds for one picture": f"{one:.2f}", "seconds for 64": f"{time.time() - start:.1f}"}


def save_grid(rows: list[list[np.ndarray]], name: str) -> None:
    (HERE / "figures").mkdir(exist_ok=True)
    grid = np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0)
    Image.fromarray(grid).quantize(128).save(HERE / "figures" / name)


def report(world: World, build: Path, seeds: int = 2) -> None:
    """Print all figures and write them to `figures/quality.json`."""
    studio = Studio()
    found = check_cells(world, studio, seeds) | check_words(world, studio) | measure_variety(world, studio)
    found |= (
        check_autoencoder(studio, world, build)
        | check_judges(studio, build)
        | check_classes(studio)
        | measure_speed(studio)
    )
    header = {"world": f"{len(world.things)} things x {len(world.styles)} styles", **DRAW}
    (HERE / "figures" / "quality.json").write_text(json.dumps(header | found, indent=1, ensure_ascii=False) + "\n")
    print(
        "\n".join(["| figure | measured |", "| --- | --- |", *(f"| {k} | {v} |" for k, v in (header | found).items())])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", nargs="+", metavar="THING", help="draw these things 96 times, and nothing else")
    args = parser.parse_args()
    torch.set_num_threads(2)
    if args.again:
        print("\n".join(f"{name}: {figure}" for name, figure in draw_again(Studio(), args.again).items()))
    else:
        report(load(), Path("build/glyphs"))


if __name__ == "__main__":
    main()
