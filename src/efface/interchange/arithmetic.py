"""Adds several edits of one base to one edit, and subtracts an edit again."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..edits.deltas import apply_parts, group_parts, merge_changes
from ..edits.edit import Edit
from ..models.base import Model
from ..plurals import write_count
from .factors import RankChoice, factor
from .rounding import find_precision


def refuse_guides(edits: Sequence[Edit]) -> None:
    """Raises ValueError where an edit is a guide."""
    for edit in edits:
        if guide := edit.meta.get("guide"):
            raise ValueError(
                f"an edit is a guide ({guide['name']}): it changes no weights that could be added up; apply it beside "
                "the others instead, as `efface draw` does with several --edit"
            )


def check_changes(model: Model, edits: Sequence[Edit]) -> None:
    """Raises ValueError where an edit is a guide, is of another base (WrongBase), or changes what the model lacks."""
    refuse_guides(edits)
    for edit in edits:
        edit.check(model)
        if unknown := sorted(set(edit.names) - set(model.weights)):
            raise ValueError(
                f"an edit changes {unknown[0]!r}, which {model.name!r} lacks ({write_count(len(unknown), 'such name')})"
            )


@torch.no_grad()
def merge(model: Model, edits: Sequence[Edit], strengths: Sequence[float]) -> dict[str, Tensor]:
    """The values of one edit with the effect of all together: base + sum of strength times change.

    Where all changes of a weight have low rank, their factors are stacked and the sum is exact; otherwise it is a new
    value. Edits that were all made on the base in half precision are added up there, so that its rounding is no change.
    """
    check_changes(model, edits)
    made = {find_precision(model, edit) for edit in edits}
    precision = made.pop() if len(made) == 1 else torch.float32
    base, values = model.weights, {}
    groups: dict[str, list[tuple[Mapping[str, Tensor], float]]] = {}
    for edit, strength in zip(edits, strengths, strict=True):
        for name, parts in edit.group_changes().items():
            groups.setdefault(name, []).append((parts, strength))
    for name, changes in groups.items():
        if len(changes) == 1 and changes[0][1] == 1:
            values |= {f"{name}:{end}" if end else name: part for end, part in changes[0][0].items()}
        elif all("down" in parts for parts, _ in changes):
            values[f"{name}:down"] = torch.cat([parts["down"].float() for parts, _ in changes])
            values[f"{name}:up"] = torch.cat([parts["up"].float() * s for parts, s in changes], dim=1)
        else:
            dense = any("" in parts for parts, _ in changes)
            own = base[name].detach().to(precision) if dense else base[name].detach()
            values[name] = merge_changes(name, own.float(), changes)
    return values


@torch.no_grad()
def changes_anything(model: Model, values: Mapping[str, Tensor]) -> bool:
    """Whether some weight of the model becomes another by these values of an edit.

    What is as small as rounding errors counts as nothing: a product of factors below a millionth of their norms, and a
    change of a weight below the last digit of fp32.
    """
    base = model.weights
    for name, parts in group_parts(values).items():
        if "down" in parts:
            up, down = parts["up"].float(), parts["down"].float()
            if (up @ down).norm() > 1e-6 * up.norm() * down.norm():
                return True
            continue
        own = base[name].float()
        change = apply_parts(name, base[name], parts).float() - own
        if change.norm() > torch.finfo(torch.float32).eps * own.norm():
            return True
    return False


@torch.no_grad()
def subtract(model: Model, whole: Edit, edit: Edit, strength: float = 1.0) -> dict[str, Tensor]:
    """The values of the first edit minus strength times the second edit's change.

    A weight whose remaining change is below a millionth of its first change is the base's own again. A warning says so
    where the first edit hardly contains the second.
    """
    check_changes(model, [whole, edit])
    base, values = model.weights, {}
    taken, share = edit.group_changes(), _Share()
    for name, parts in whole.group_changes().items():
        if name not in taken:
            values |= {f"{name}:{end}" if end else name: part for end, part in parts.items()}
            continue
        own = base[name].detach().float()
        off = apply_parts(name, own, taken[name]).float() - own
        first = apply_parts(name, own, parts).float() - own
        share.add(first, off)
        left = first - strength * off
        if left.norm() <= 1e-6 * max(first.norm(), off.norm()):
            continue
        if "down" in parts and "down" in taken[name]:
            values[f"{name}:down"], values[f"{name}:up"] = factor(left, RankChoice(energy=1.0))
        else:
            values[name] = own + left
    if spare := sorted(set(taken) - set(whole.group_changes())):
        raise ValueError(
            f"the edit to subtract is no part of the other, which does not change {spare[0]} ({len(spare)} such)"
        )
    share.compare("the merged edit", strength)
    return values


@torch.no_grad()
def revert(base: Model, edited: Model, edit: Edit, strength: float = 1.0) -> dict[str, Tensor]:
    """The weights of an edited model minus an edit's change, for the weights that the edit changes.

    A weight that equals the edited base bit for bit becomes the base's own, bit for bit, and one that is the base's own
    already stays; another weight keeps its further changes: W − strength · Δ, rounded once. A warning says so where the
    model hardly contains the edit.

    Raises:
        ValueError: the edit is of another base, or the model does not contain it.
    """
    check_changes(base, [edit])
    ours, theirs, values, share = base.weights, edited.weights, {}, _Share()
    if ours.keys() != theirs.keys() or any(ours[name].shape != theirs[name].shape for name in ours):
        raise ValueError(f"{edited.name} is no edited {base.name}: their weights differ in names or shapes")
    for name, parts in edit.group_changes().items():
        own = ours[name].detach().to(theirs[name].device)
        whole = merge_changes(name, own.to(theirs[name].dtype), [(parts, strength)])
        off = apply_parts(name, own, parts).float() - own.float()
        share.add(theirs[name].detach().float() - own.float(), off)
        if torch.equal(whole, theirs[name]) or torch.equal(own.to(theirs[name].dtype), theirs[name]):
            values[name] = own.to(theirs[name].dtype)
        else:
            values[name] = (theirs[name].detach().float() - strength * off).to(theirs[name].dtype)
    if all(torch.equal(ours[name].to(theirs[name]), theirs[name]) for name in values):
        raise ValueError(
            f"{edited.name} does not contain the edit: every weight that the edit changes is the base's own there"
        )
    share.compare(edited.name, strength)
    return values


class _Share:
    """Measures how much of an edit's change is in another change of the same weights.

    The measure is <D, Δ> / <Δ, Δ>: the strength s for which s · Δ is nearest to the other change D (least squares).
    """

    def __init__(self) -> None:
        self.both = self.own = 0.0

    def add(self, change: Tensor, part: Tensor) -> None:
        """Adds a weight: the other change D and the edit's Δ, of one shape."""
        self.both += float((change.double() * part.double()).sum())
        self.own += float(part.double().square().sum())

    def compare(self, whole: str, strength: float) -> None:
        """Warns where the measured strength is not about the one that is removed."""
        if self.own and abs((found := self.both / self.own) - strength) > abs(strength) / 2:
            warnings.warn(
                f"{whole} seems to contain the edit at a strength of {found:.2f}, and {strength:g} of it was removed; "
                "if another edit or another strength was applied there, the result holds the opposite of a part of "
                "the edit",
                stacklevel=4,
            )
