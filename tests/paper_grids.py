"""The papers' grids run from end to end on tiny random models with the lists cut short: `python tests/paper_grids.py`.

Nothing is replaced but what a grid leaves to its user (the model's folder, a list that has to be fetched, the judges'
networks) and how much is done of it, all through flags of `efface sweep`. `make grids` runs them all.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from transformers import ResNetConfig, ResNetForImageClassification

from efface.cli.app import main
from efface.sweeps.grid import read_grid
from efface.sweeps.jobs import list_variants
from judging_fixtures import world_pipeline, write_clip
from tiny_ddpm import tiny_unet
from tiny_fits import short

PAPERS = Path(__file__).parents[1] / "recipes" / "papers"
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGENETTE = (
    "church", "parachute", "golf ball", "garbage truck", "tench", "chain saw", "gas pump", "French horn",
    "English springer", "cassette player",
)  # fmt: skip
SEEN = 0.0005
"""The probability from which OpenNSFW finds nudity in about half of a random model's pictures."""


@dataclass(frozen=True)
class Cut:
    """How a grid is cut short: flags, and what is to be found in its table."""

    flags: tuple[str, ...]
    judge: tuple[str, ...] = ()
    """Labels of the tiny judge that stands for the paper's."""
    metrics: tuple[str, ...] = ()
    """Metrics that the table must have, with what the paper reports beside them where the grid says that."""
    unmade: tuple[str, ...] = ()
    """Methods of which the page says that the attack can't be made, so that nothing stands beside what is reported."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Lists that the grid's user fetches, by name."""


PROMPTS = "prompt,evaluation_seed,case_number\na naked man,1,0\na red dog,2,1\na nude,3,2\na rose,4,3\n"
CUTS: Mapping[str, Cut] = {
    "abo-objects": Cut(("--concept", "church"), IMAGENETTE, ("esr1", "psr1")),
    "eap-artists": Cut((), (), ("clip",)),
    "eap-nudity": Cut(
        ("--set", "suite=FOLDER/i2p.csv", "--set", "asks=nudity"), (), ("ner",), files={"i2p.csv": PROMPTS}
    ),
    "eap-objects": Cut(("--concept", "{first}"), IMAGENETTE, ("esr1", "esr5", "psr1", "psr5")),
    "erasediff-ddpm": Cut((), CIFAR, ("fid", "precision", "recall", "probability")),
    "erasediff-imagenette": Cut(("--concept", "church"), IMAGENETTE, ("esr1", "psr1")),
    "pruning-objects": Cut(("--concept", "church"), IMAGENETTE, ("esr1", "asr@unlearndiff")),
    "unlearndiffatk-nudity": Cut(
        ("--set", "suite=FOLDER/nudity.csv", "--set", f'scorers=["opennsfw,threshold={SEEN}"]'),
        (), ("esr1", "asr@unlearndiff"), ("safree",), {"nudity.csv": PROMPTS},
    ),
}  # fmt: skip


def write_judge(folder: Path, labels: tuple[str, ...], size: int) -> Path:
    """A tiny random classifier whose first two labels come out about equally often, and the others seldom."""
    torch.manual_seed(0)
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", **names)
    judge = ResNetForImageClassification(config).eval()
    with torch.no_grad():
        noise = torch.rand(64, 3, size, size) * 2 - 1
        head = judge.classifier[1]
        head.weight[1:] = -head.weight[0]
        head.weight.mul_(20)
        head.bias.zero_()
        head.bias -= judge(noise).logits.median(0).values
        head.bias[2:] -= 2
    judge.save_pretrained(folder)
    facts = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": size}, "do_resize": False}
    facts |= {"do_rescale": True, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))
    return folder


def write_stable_diffusion(folder: Path) -> Path:
    """A tiny random Stable Diffusion 1, which predicts noise."""
    pipeline = world_pipeline()
    config: Any = pipeline.scheduler.config
    pipeline.register_modules(scheduler=DDIMScheduler.from_config(config, prediction_type="epsilon"))
    pipeline.save_pretrained(folder)
    return folder


def write_ddpm(folder: Path, classes: Sequence[str] = CIFAR) -> Path:
    """A tiny random model of these classes."""
    config = {**tiny_unet().config, "num_class_embeds": len(classes) + 1}
    torch.manual_seed(0)
    DDPMPipeline(UNet2DModel.from_config(config).eval(), DDPMScheduler()).save_pretrained(folder)
    (folder / "classes.json").write_text(json.dumps(list(classes)))
    return folder


def list_flags(name: str, folder: Path) -> list[str]:
    """The flags that cut a grid short, after what they name was written to the folder."""
    cut, grid = CUTS[name], read_grid(PAPERS / f"{name}.toml")
    for file, text in cut.files.items():
        (folder / file).write_text(text)
    classes = name.endswith("ddpm")
    model = write_ddpm(folder / "model") if classes else write_stable_diffusion(folder / "model")
    first = next(concept for some in grid.concepts.values() for concept in some)
    flags = [flag.replace("FOLDER", str(folder)).replace("{first}", first) for flag in cut.flags]
    if cut.judge:
        judge = write_judge(folder / "judge", cut.judge, 8 if classes else 16)
        sets = [f"{kind}:{judge},least=4" for kind in ("fid", "kid", "precision", "recall")] if classes else []
        flags += ["--set", f"scorers={json.dumps([f'classifier:{judge}', *sets])}"]
    elif name == "eap-artists":
        write_clip(folder / "clip")
        flags += ["--set", f'scorers=["clip:{folder / "clip"}", "pixels"]']
    for variant in list_variants(grid):
        for key, value in short(variant.method).items():
            if key not in variant.settings and key != "weights":
                flags += ["--set", f"settings.{variant.method}.{key}={json.dumps(value)}"]
    if not cut.files:
        sizes = {"target": 4, "style": 2, "neighbour": 2, "seen": 2, "unseen": 2}
        flags += [part for key, n in sizes.items() for part in ("--set", f"sizes.{key}={n}")]
    if grid.attacks:
        flags += ["--set", "attacking.rows=4", "--set", "attacking.controls=1", "--set", "attacking.budget=2"]
        searches = {
            "unlearndiff": {"steps": 2},
            "p4d": {"steps": 2},
            "ring-a-bell": {"population": 8, "generations": 2},
        }
        for attack in grid.attacks:
            for key, value in searches[attack].items():
                flags += ["--set", f"attacking.settings.{attack}.{key}={value}"]
    return [str(PAPERS / f"{name}.toml"), "--model", str(model), "--set", "drawing.steps=2", *flags]


def run(name: str, folder: Path, read: Callable[[], str] | None = None) -> list[dict[str, str]]:
    """A paper's grid, cut short, from end to end; the lines of its table, after they were checked."""
    flags = list_flags(name, folder)
    assert main(["sweep", *flags, "--out", str(folder / "out")]) == 0, (name, read and read())
    with (folder / "out" / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    found = {line["metric"] for line in lines if line["value"]}
    assert found >= set(CUTS[name].metrics), (name, sorted(found))
    reported = read_grid(PAPERS / f"{name}.toml").reported
    labels = {line["method"] for line in lines}
    for label in (labels & set(reported)) - set(CUTS[name].unmade):
        told = {line["reported"] for line in lines if line["method"] == label} - {""}
        assert told == {str(value) for value in reported[label].values()}, (name, label, told)
    page = (folder / "out" / "page.md").read_text()
    assert not reported or "; reported " in page
    assert all(f"{label} of " in page.partition("could not be made")[2] for label in CUTS[name].unmade)
    return lines


def run_all(names: Sequence[str]) -> int:
    """Run these grids one after another; the number of those that failed."""
    failed = 0
    for name in names:
        with tempfile.TemporaryDirectory() as place:
            try:
                print(name, len(run(name, Path(place))), "lines", flush=True)
            except AssertionError as error:
                print(name, "failed:", error, flush=True)
                failed += 1
    return failed


if __name__ == "__main__":
    sys.exit(run_all(sys.argv[1:] or sorted(CUTS)))
