"""What an attack finds on a tiny random model: an edit of given values, pictures, rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from efface.attacks.base import AttackContext, keep_in_memory
from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.edits.provenance import describe_run
from efface.models.base import Model
from efface.suites.spec import Row
from tiny import WORDS

Once = Callable[[str, Callable[[], dict[str, Tensor]]], dict[str, Tensor]]


def edit_of(model: Model, values: Mapping[str, Tensor]) -> Edit:
    """An edit of this model that erases "cat"."""
    return Edit(values, describe_run(model, Erasure(("cat",)), "planted", {}))


def build_shifted(model: Model, selection: str = "attn2", size: float = 0.1) -> Edit:
    """Every number of some weights moved at random."""
    rng = torch.Generator().manual_seed(3)
    names = [name for name in model.weights if selection in name]
    return edit_of(
        model, {n: (w := model.weights[n].detach()) + size * torch.randn(w.shape, generator=rng) for n in names}
    )


def build_context(
    model: Model,
    edit: Edit | None,
    *,
    placeholder: str = "",
    asks: str = "object",
    once: Once | None = None,
    pictures: int = 5,
) -> AttackContext:
    """Call it before the edit is applied: its base is what is in place now."""
    base = {name: weight.detach() for name, weight in model.weights.items()}

    @contextmanager
    def untouched() -> Iterator[None]:
        with model.swap_in(base):
            yield

    side = model.resolution
    shown = torch.randint(256, (pictures, 3, side, side), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return AttackContext(
        model=model,
        edit=edit,
        concept="cat",
        base=untouched,
        synonyms=("lion",),
        words=WORDS,
        pictures=shown,
        placeholder=placeholder,
        asks=asks,
        once=once or keep_in_memory(),
    )


def build_rows(*prompts: str) -> list[Row]:
    return [
        Row(f"row/{i}", prompt, 100 + i, "target", "erase", "object", "cat", ("cat",), "cat")
        for i, prompt in enumerate(prompts)
    ]


class Files:
    """A memory like the runner's: outlives an interruption, and counts what was made."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.kept: dict[str, dict[str, Tensor]] = {}
        self.made: list[str] = []
        self.fail_at = fail_at

    def __call__(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        if name not in self.kept:
            if len(self.made) == self.fail_at:
                raise KeyboardInterrupt
            self.kept[name] = {key: tensor.clone() for key, tensor in make().items()}
            self.made.append(name)
        return self.kept[name]


def take_snapshot(model: Model) -> dict[str, Tensor]:
    """The very tensors in place, to be compared by identity."""
    return dict(model.weights)


def is_same(model: Model, before: Mapping[str, Tensor]) -> bool:
    return all(tensor is before[name] for name, tensor in model.weights.items())


def drive(gen: object, model: Model, look: Callable[[Sequence], object]) -> list:
    """Runs an attack to its end; what `look` says of the candidates of each round."""
    out = []
    candidates = next(gen)  # type: ignore[call-overload]
    try:
        while True:
            out.append(look(candidates))
            candidates = gen.send([False] * len(candidates))  # type: ignore[attr-defined]
    except StopIteration:
        return out


class Overflowing(torch.autograd.Function):
    """Passes predictions on; gradients above a tenth of the first one's largest number overflow, as in fp16."""

    bound = 0.0

    @staticmethod
    def forward(ctx, prediction: Tensor) -> Tensor:
        return prediction.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        largest = float(grad.abs().max())
        Overflowing.bound = Overflowing.bound or largest / 10
        return grad * (torch.inf if largest > Overflowing.bound else 1)


def let_gradients_overflow(model: Model, patch: pytest.MonkeyPatch) -> None:
    """Lets the model multiply losses by 4096, with which its gradients overflow; those by 256 do not."""
    predict = model.predict
    patch.setattr(Overflowing, "bound", 0.0)
    patch.setattr(type(model), "loss_factor", 4096.0)
    patch.setattr(model, "predict", lambda *given: tuple(Overflowing.apply(said) for said in predict(*given)))
