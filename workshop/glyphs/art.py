"""Fetch the emoji sets and render every thing of the world in every style.

The sets come as npm packages of pinned versions (`foundries` in world.toml).  An icon is rendered by resvg at
`SIZE` pixels, cropped to its ink and stored as RGBA.  The result is one file, `art.npz`; a hash of each foundry's
pixels is compared with `art.sha256`, so that everybody trains on the same ones.  Pillow's resampling decides them:
11.3 and 12.0 give the same pixels, 13.0 others; resvg-py 0.4 and 0.5 give the same.
"""

import hashlib
import importlib.metadata
import io
import json
import subprocess
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from . import world as world_

SIZE = 96  # pixels on the longer side: scenes only ever scale down
HERE = Path(__file__).parent


def fetch(package: str, version: str, folder: Path) -> dict:
    """The icons.json of an iconify package, downloaded once by `npm pack`."""
    name = package.replace("@", "").replace("/", "-")
    tgz = folder / f"{name}-{version}.tgz"
    if not tgz.exists():
        subprocess.run(["npm", "pack", "--silent", f"{package}@{version}"], cwd=folder, check=True)
    with tarfile.open(tgz) as tar:
        member = tar.extractfile("package/icons.json")
        if member is None:
            raise FileNotFoundError(f"{tgz} has no icons.json")
        return json.load(member)


def read_svg(icons: dict, name: str) -> str | None:
    """One icon as a standalone SVG, following an alias to its parent; None where the set lacks it."""
    if name not in icons["icons"]:
        alias = icons.get("aliases", {}).get(name)
        if alias is None or alias["parent"] not in icons["icons"]:
            return None
        name = alias["parent"]
    icon = icons["icons"][name]
    box = [icon.get(k, icons.get(k, d)) for k, d in (("left", 0), ("top", 0), ("width", 16), ("height", 16))]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{" ".join(map(str, box))}" width="{2 * SIZE}" height="{2 * SIZE}">{icon["body"]}</svg>'
    )


def render(text: str) -> np.ndarray:
    """RGBA pixels [h, w, 4] uint8, cropped to the ink, the longer side `SIZE`."""
    import resvg_py  # installed by the extra "glyphs" alone

    png = bytes(resvg_py.svg_to_bytes(svg_string=text, width=2 * SIZE))
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    box = image.getchannel("A").point(lambda a: 255 * (a > 24)).getbbox()
    if box is None:
        raise ValueError("an empty picture")
    image = image.crop(box)
    scale = SIZE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS))


def render_set(package: str, version: str, wanted: dict[str, list[str]], folder: Path) -> dict[str, np.ndarray]:
    """The wanted things ({name: icon names by preference}) of one set; unrenderable icons are listed and skipped."""
    icons = fetch(package, version, folder)
    out = {}
    for thing, names in wanted.items():
        for name in names:
            text = read_svg(icons, name)
            if text is None:
                continue
            try:
                out[thing] = render(text)
                break
            except BaseException as error:  # resvg panics are not Exceptions
                if isinstance(error, KeyboardInterrupt):
                    raise
                print(f"skipped {package} {name}: {type(error).__name__} {error}")
    return out


def list_others(package: str, version: str, world: world_.World, folder: Path, most: int) -> dict[str, np.ndarray]:
    """Icons of a set that are no thing of the world: what a judge must call none."""
    icons = fetch(package, version, folder)
    ours = {icon for thing in world.all_things for icon in thing.icons}
    words = {word for thing in world.all_things for word in thing.name.split()}
    names = [n for n in sorted(icons["icons"]) if n not in ours and not words & set(n.split("-"))]
    picked = np.random.default_rng(0).permutation(names)[:most]
    return render_set(package, version, {n: [n] for n in picked}, folder)


def digest(arrays: dict[str, np.ndarray]) -> str:
    h = hashlib.sha256()
    for key in sorted(arrays):
        h.update(key.encode() + str(arrays[key].shape).encode() + arrays[key].tobytes())
    return h.hexdigest()


def read_recorded() -> dict[str, str]:
    """The hash of each foundry's pixels, as `art.sha256` has it."""
    lines = (HERE / "art.sha256").read_text().splitlines()
    return {name: value for value, name in (line.split() for line in lines if not line.startswith("#"))}


def check(hashes: dict[str, str]) -> None:
    """Raises ValueError where these hashes by foundry are not the recorded ones."""
    before = read_recorded()
    if moved := sorted(name for name in hashes.keys() | before.keys() if hashes.get(name) != before.get(name)):
        used = ", ".join(f"{name} {_find_installed(name)}" for name in ("pillow", "resvg-py"))
        header = (HERE / "art.sha256").read_text().splitlines()[0].removeprefix("# ")
        raise ValueError(
            f"the pixels of {', '.join(moved)} differ from those that art.sha256 records ({header}); these were made "
            f"with {used}, and Pillow's version decides them"
        )


def _find_installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def make(build: Path) -> None:
    """Fetch, render and store all art.

    Raises:
        ValueError: the pixels differ from those that `art.sha256` records; nothing is stored then.
    """
    packages = build / "npm"
    packages.mkdir(parents=True, exist_ok=True)
    world = world_.load()
    wanted = {t.name: list(t.icons) for t in world.all_things}
    arrays = {}
    for style in world.all_styles + world.unseen:
        art = render_set(style.package, style.version, wanted, packages)
        extra = list_others(style.package, style.version, world, packages, most=150)
        arrays |= {f"{style.name}/{k}": v for k, v in art.items()}
        arrays |= {f"{style.name}/other/{k}": v for k, v in extra.items()}
        print(f"{style.name}: {len(art)} of {len(wanted)} things, {len(extra)} others")
    hashes = {
        style.name: digest({k: v for k, v in arrays.items() if k.startswith(f"{style.name}/")})
        for style in world.all_styles + world.unseen
    }
    check(hashes)
    np.savez(build / "art.npz", **arrays)
