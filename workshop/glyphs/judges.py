"""The judges: two architectures, each reading the thing and the style of a picture; both know a class "none".

A trunk is trained with two heads and written as two ordinary image classifiers.  Training pictures are fresh
compositions, half of them passed through the autoencoder, augmented; never a generated picture.
"""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoModelForImageClassification,
    PreTrainedModel,
    RegNetConfig,
    RegNetForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
)

from . import loop
from .scenes import Composer, Scene, load_art
from .world import World


def build_bodies(labels: int) -> dict[str, PreTrainedModel]:
    """The two architectures, each an image classifier of `labels` classes on 64 x 64 pictures."""
    resnet = ResNetConfig(
        embedding_size=32, hidden_sizes=[32, 64, 96, 160], depths=[1, 1, 1, 1], layer_type="basic",
        downsample_in_first_stage=False, num_labels=labels,
    )  # fmt: skip
    regnet = RegNetConfig(
        embedding_size=32, hidden_sizes=[64, 96, 160, 256], depths=[1, 1, 2, 1], groups_width=32, layer_type="y",
        num_labels=labels,
    )  # fmt: skip
    return {"resnet": ResNetForImageClassification(resnet), "regnet": RegNetForImageClassification(regnet)}


class TwoHeads(nn.Module):
    """One classifier whose last layer answers for things and styles at once: logits [n, things + 1 + styles + 1]."""

    def __init__(self, body: PreTrainedModel, things: int) -> None:
        nn.Module.__init__(self)
        self.body, self.split = body, things + 1

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.body(pixel_values=x).logits.float()
        return logits[:, : self.split], logits[:, self.split :]


def build_goals(scenes: list[Scene], things: int) -> tuple[Tensor, Tensor]:
    """Targets: half the mass on each of two things, "none" (the last class) where there is none."""
    goal = torch.zeros(len(scenes), things + 1)
    for row, s in enumerate(scenes):
        goal[row, list(s.things) or [things]] = 1 / max(1, len(s.things))
    return goal, torch.tensor([s.style for s in scenes])


def augment(x: Tensor, vae: AutoencoderKL) -> Tensor:
    """Half of the pictures as the autoencoder returns them; brightness, contrast and a little noise."""
    n = len(x) // 2
    with torch.no_grad(), loop.autocast():
        again = vae.decode(vae.encode(x[:n]).latent_dist.sample()).sample.float()
    x = torch.cat([again, x[n:]])
    gain = 1 + 0.15 * (torch.rand(len(x), 1, 1, 1, device=x.device) - 0.5)
    shift = 0.1 * (torch.rand(len(x), 3, 1, 1, device=x.device) - 0.5)
    return (x * gain + shift + 0.03 * torch.randn_like(x)).clamp(-1, 1)


def train(
    kind: str,
    world: World,
    build: Path,
    steps: int,
    warm: bool = False,
    batch: int = 64,
    seed: int = 31,
    lr: float = 1e-3,
    **options: float | None,
) -> TwoHeads:
    """Train one judge, from the two classifiers in `build/judges` when `warm`."""
    things, styles = len(world.things), len(world.styles)
    vae = (
        AutoencoderKL.from_pretrained(build / "vae").to(loop.choose_device(), memory_format=torch.channels_last).eval()
    )
    torch.manual_seed(seed)
    module = TwoHeads(build_bodies(things + 1 + styles + 1)[kind], things)
    if warm:
        read(module, kind, build)

    def loss(x: Tensor, scenes: list, step: int) -> tuple[Tensor, dict[str, float]]:
        thing, style = build_goals(scenes, things)
        style = style.where(style >= 0, torch.tensor(styles)).to(x.device)
        with loop.autocast():
            a, b = module(augment(x, vae))
        first = a.argmax(1).cpu() == thing.argmax(1)
        value = F.cross_entropy(a, thing.to(x.device)) + F.cross_entropy(b, style)
        return value, {"thing": first.float().mean().item(), "style": (b.argmax(1) == style).float().mean().item()}

    composer = Composer(world, load_art(build), none_rate=0.12)
    mean = loop.fit(
        f"judge-{kind}", module, loss, composer, build,
        steps=steps, batch=batch, lr=lr, seed=seed, weight_decay=0.05, average=0.99, warmup=30, **options,
    )  # fmt: skip
    assert isinstance(mean, TwoHeads)
    return mean


def read(module: TwoHeads, kind: str, build: Path) -> None:
    """Load the two classifiers that `write` wrote back into one module with two heads."""
    object_, style = (
        AutoModelForImageClassification.from_pretrained(build / "judges" / f"{task}-{kind}").state_dict()
        for task in ("object", "style")
    )
    joined = {k: torch.cat([v, style[k]]) if k.startswith("classifier") else v for k, v in object_.items()}
    module.body.load_state_dict(joined)


def write(module: TwoHeads, kind: str, world: World, build: Path) -> None:
    """Two folders that `AutoModelForImageClassification.from_pretrained` reads."""
    names = {"object": [t.name for t in world.things] + ["none"], "style": [s.name for s in world.styles] + ["none"]}
    state = module.body.state_dict()
    head = [k for k in state if k.startswith("classifier")]
    for task, rows in (("object", slice(0, module.split)), ("style", slice(module.split, None))):
        model = build_bodies(len(names[task]))[kind]
        model.load_state_dict({k: v[rows] if k in head else v for k, v in state.items()})
        model.config.id2label = dict(enumerate(names[task]))
        model.config.label2id = {v: k for k, v in model.config.id2label.items()}
        folder = build / "judges" / f"{task}-{kind}"
        model.eval().save_pretrained(folder)
        processor = {
            "image_processor_type": "ConvNextImageProcessor", "do_resize": False,
            "do_normalize": True, "do_rescale": True,
            "rescale_factor": 1 / 255, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"shortest_edge": 64},
        }  # fmt: skip
        (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


def train_all(world: World, build: Path, steps: int, warm: bool = False, **options) -> None:
    for seed, kind in enumerate(("resnet", "regnet"), 31):
        write(train(kind, world, build, steps, warm, seed=seed, **options), kind, world, build)
