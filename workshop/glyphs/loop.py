"""The one training loop of the workshop: resumable at any moment, averaged weights, a line of log a minute."""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from .muon import Muon
from .scenes import Batches, Composer

Loss = Callable[[Tensor, list, int], tuple[Tensor, dict[str, float]]]


def choose_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def scale_pixels(batch: np.ndarray) -> Tensor:
    """uint8 [n, 3, h, w] to float in [-1, 1], channels last, on the training device."""
    x = torch.from_numpy(batch).to(choose_device()).float().div(127.5).sub(1)
    return x.contiguous(memory_format=torch.channels_last)


def keep_unchanged(batch: tuple) -> tuple:
    return batch


def follow(decay: float) -> Callable:
    """An exponential mean whose memory grows with the steps taken, so that a short run forgets its first weights."""

    @torch.no_grad()
    def update(means: list[Tensor], news: list[Tensor], taken: Tensor) -> None:
        n = float(taken)
        weight = 1 - min(decay, (1 + n) / (10 + n))
        for mean, new in zip(means, news, strict=True):
            if mean.is_floating_point():
                mean.lerp_(new, weight)
            else:
                mean.copy_(new)

    return update


def fit(
    name: str,
    module: nn.Module,
    loss: Loss,
    composer: Composer,
    build: Path,
    *,
    steps: int,
    batch: int,
    lr: float,
    seed: int,
    weight_decay: float = 0.01,
    average: float = 0.999,
    warmup: int = 100,
    cooldown: int | None = None,
    save_every: float = 120.0,
    workers: int | None = None,
    seconds: float | None = None,
) -> nn.Module:
    """Train `module` to `steps` and return it with its averaged weights; `build/name.pt` holds the state to resume.

    Muon, gradients clipped to norm 1.  After a linear warm-up the learning rate stays at `lr` until `cooldown` steps
    are left (all of them when None) and then follows a cosine down to a twentieth of `lr`.  With `seconds` the
    training ends after that time, whatever `steps` says, and the cosine runs over the whole of it.  Scenes are composed
    by `workers` processes: one on a CPU, all cores but two beside a GPU.
    """
    if workers is None:
        workers = 1 if choose_device().type == "cpu" else max(1, (os.cpu_count() or 4) - 2)
    module.to(choose_device(), memory_format=torch.channels_last).train()
    optimiser = Muon(module.parameters(), lr=lr, weight_decay=weight_decay)
    mean = torch.optim.swa_utils.AveragedModel(module, multi_avg_fn=follow(average), use_buffers=True)
    path, start = build / f"{name}.pt", 0
    if path.exists():
        state = torch.load(path, map_location=choose_device(), weights_only=True)
        module.load_state_dict(state["module"])
        mean.load_state_dict(state["mean"])
        optimiser.load_state_dict(state["optimiser"])
        start = state["step"]
        print(f"{name}: resuming at step {start} of {steps}", flush=True)
    batches = DataLoader(
        Batches(composer, batch, steps, seed, start),
        batch_size=None,
        collate_fn=keep_unchanged,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
    )
    clock = saved = logged = time.time()
    for step, (data, scenes) in enumerate(batches, start):
        spent = (time.time() - clock) / seconds if seconds else 0.0
        if spent >= 1:
            break
        fall = cosine(int(1000 * spent), 1000, 1000) if seconds else cosine(step, steps, cooldown or steps)
        scale = min(1.0, (step + 1) / warmup) * fall
        for group in optimiser.param_groups:
            group["lr"] = lr * scale
        torch.manual_seed(seed * 1_000_003 + step)
        value, info = loss(scale_pixels(data), scenes, step)
        if not torch.isfinite(value):
            raise FloatingPointError(f"{name}: the loss is {value.item()} at step {step}")
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        mean.update_parameters(module)
        now = time.time()
        if now - logged > 30 or step + 1 == steps:
            rate = (step + 1 - start) / (now - clock)
            detail = " ".join(f"{k} {v:.4f}" for k, v in info.items())
            print(f"{name} {step + 1}/{steps} loss {value.item():.4f} {detail} {1 / rate:.2f} s/step", flush=True)
            logged = now
        if now - saved > save_every or step + 1 == steps:
            save(
                path,
                {
                    "module": module.state_dict(),
                    "mean": mean.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "step": step + 1,
                },
            )
            saved = now
    return mean.module.eval()


def cosine(step: int, steps: int, cooldown: int) -> float:
    """The factor of the learning rate: 1 until the last `cooldown` of `steps`, then half a cosine down to 0.05."""
    done = max(0, step - (steps - cooldown)) / cooldown
    return 0.525 + 0.475 * math.cos(math.pi * done)


def save(path: Path, state: dict) -> None:
    """Write to a temporary name, then rename, so that a kill leaves the last good state."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def autocast() -> torch.autocast:
    return torch.autocast(choose_device().type, dtype=torch.bfloat16)
