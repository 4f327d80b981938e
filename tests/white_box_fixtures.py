"""Attacks by gradient with small budgets, what they find on a tiny model, and all that they try."""

from __future__ import annotations

from contextlib import nullcontext

import torch

from efface.attacks.base import Attack, AttackContext, propose_within_budget
from efface.attacks.mma import MMA
from efface.attacks.p4d import P4D
from efface.attacks.soft_prompt import SoftPrompt
from efface.attacks.unlearndiff import UnlearnDiff
from efface.edits.edit import Edit
from efface.models.base import Model
from efface.suites.spec import Row
from tiny import WORDS

WHOLE = [word for word in WORDS if len(word) > 1]
QUICK = (
    UnlearnDiff(queries=3, steps=4, tokens=2, lr=0.1),
    P4D(queries=3, steps=4, tokens=3, how="hard"),
    P4D(queries=3, steps=4, tokens=3, how="soft", lr=0.5),
    SoftPrompt(queries=3, steps=4, tokens=2, lr=0.5),
    SoftPrompt(queries=3, steps=4, where="encoding", lr=0.1),
    MMA(queries=3, steps=2, tokens=2, top=4, candidates=6),
)
BY_GRADIENT = [attack for attack in QUICK if attack.threat == "gradients"]


def name_attack(attack: Attack) -> str:
    return "-".join([type(attack).__name__, *(v for v in (getattr(attack, n, "") for n in ("how", "where")) if v)])


def build_row(i: int, prompt: str = "a cat") -> Row:
    return Row(f"target/cat/{i:04d}", prompt, i, "target", "erase", "object", "cat", ("cat",), thing="cat")


ROWS = [build_row(0), build_row(1, "a red cat"), build_row(2, "dog")]


def build_context(model: Model, base: dict[str, torch.Tensor] | None = None, edit: Edit | None = None) -> AttackContext:
    """Cat is to come back; the base's weights are the model's own unless given."""
    pictures = torch.randint(256, (4, 3, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    if model.architecture == "ddpm":
        pictures = pictures[..., :8, :8]
    return AttackContext(
        model, edit, "cat", lambda: model.swap_in(base) if base else nullcontext(), ("lion",), WHOLE, pictures
    )


def shake(model: Model) -> dict[str, torch.Tensor]:
    """The U-Net's weights, moved: as an edit would."""
    rng = torch.Generator().manual_seed(5)
    return {
        name: w + 0.5 * w.std(correction=0) * torch.randn(w.shape, generator=rng).to(w)
        for name, w in ((name, w.detach()) for name, w in model.weights.items())
        if name.startswith("unet.") and "attn2" in name
    }


def list_candidates(
    attack: Attack, context: AttackContext, rows: list[Row], broken: list[list[bool]] | None = None
) -> list:
    """All rounds; `broken` answers them one by one, nothing breaks by default."""
    rounds, proposals = [], propose_within_budget(attack, context, rows)
    answers = iter(broken or [])
    try:
        candidates = next(proposals)
        while True:
            rounds.append(candidates)
            candidates = proposals.send(next(answers, [False] * len(rows)))
    except StopIteration:
        return rounds
