"""Make the picture of the README from a judged and attacked folder: `python -m recipes.picture FOLDER --out FILE.png`.

Its columns are the erased concept, its near neighbours, things that fitting never saw, and successes of attacks; the
upper row shows the untouched base (for attacks, the picture under the edit before the attack), and the lower row the
same seeds under the edit (for attacks, the picture that brings the concept back). The pictures are not selected: each
group shows its first pairs in the order of the report, in which concepts take turns, whatever their result is.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from efface.evaluation.images import read_image
from efface.files import decode_picture
from efface.records import attack_files
from efface.records.report import read_report
from efface.reporting.gallery import Pair, build_attack_gallery, build_evaluation_gallery

SIDE, GAP, LINE = 112, 6, 22
"""Lengths in pixels: a picture's side, the space between two pictures, and the height of a line of text."""
TITLES = {"target": "erased", "neighbour": "near neighbours", "unseen": "never seen by the fit"}
ROWS = ("before", "after")
LEFT = 64
"""Width in pixels of the names of the rows, left of the pictures."""


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the flags, and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder that `efface evaluate` wrote, with or without attacks")
    parser.add_argument("--out", type=Path, default=Path("docs/figures/erased.png"), help="picture to write")
    parser.add_argument("--each", type=int, default=3, help="number of pairs of each group")
    args = parser.parse_args(argv)
    blocks = choose(args.folder, args.each)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    compose(blocks).save(args.out, optimize=True)
    print(args.out)


def choose(folder: Path, each: int) -> list[tuple[str, list[Pair]]]:
    """Chooses the columns: a title and at most `each` pairs of each group, then those of attacks on the erased
    concept."""
    gallery = build_evaluation_gallery(read_report(folder), folder)
    blocks = []
    for group, title in TITLES.items():
        pairs = [pair for pair in gallery.pairs if pair.group == group][:each]
        if pairs:
            blocks.append((title, pairs))
    if record := attack_files.read_attacks(folder):
        won = build_attack_gallery(record, folder).pairs
        blocks.append(("brought back by attacks", take_turns([p for p in won if "erased" in p.verdict], each)))
    return [block for block in blocks if block[1]]


def take_turns(pairs: Sequence[Pair], each: int) -> list[Pair]:
    """Takes the first pairs that have both pictures, one of each attack in turn."""
    by_attack: dict[str, list[Pair]] = {}
    for pair in pairs:
        if pair.before is not None:
            by_attack.setdefault(pair.group, []).append(pair)
    turns = sorted((place, name) for name, found in by_attack.items() for place in range(len(found)))
    return [by_attack[name][place] for place, name in turns[:each]]


def compose(blocks: Sequence[tuple[str, Sequence[Pair]]]) -> Image.Image:
    """Makes one image of blocks side by side, each under its title; each column stands over its prompt and the judges'
    answers."""
    columns = sum(len(pairs) for _, pairs in blocks)
    width = LEFT + columns * (SIDE + GAP) + (len(blocks) - 1) * 3 * GAP + GAP
    image = Image.new("RGB", (width, 2 * (SIDE + GAP) + 3 * LINE + GAP), "white")
    pen, font, small = ImageDraw.Draw(image), ImageFont.load_default(13), ImageFont.load_default(11)
    for place, name in enumerate(ROWS):
        pen.text((GAP, LINE + place * (SIDE + GAP) + SIDE // 2 - 8), name, "black", font)
    x = LEFT
    for title, pairs in blocks:
        pen.text((x, 3), title, "black", ImageFont.load_default(14))
        for pair in pairs:
            for place, path in enumerate((pair.before, pair.after)):
                if path is not None:
                    image.paste(enlarge(path), (x, LINE + place * (SIDE + GAP)))
            under = LINE + 2 * (SIDE + GAP)
            pen.text((x, under), fit(pair.prompt, small), "black", small)
            pen.text((x, under + LINE - 6), fit(f"seen: {pair.said[1]}", small), "#595959", small)
            x += SIDE + GAP
        x += 3 * GAP
    return image


def enlarge(path: Path) -> Image.Image:
    """Reads a picture and scales it to `SIDE` pixels."""
    return decode_picture(read_image(path), path).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Cuts the text with an ellipsis if it is wider than a picture."""
    while font.getlength(text) > SIDE and len(text) > 2:
        text = text.rstrip("…")[:-1] + "…"
    return text


if __name__ == "__main__":
    main()
