"""The weights of a model: by checkpoint name, and swapped by reference.

A model is never changed in place. Inside `Weights.swap_in` the modules hold other tensors; afterwards they hold the
very tensors that were there before, so that the model is restored exactly and needs no second copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from ..plurals import write_count


class Weights:
    """The parameters of a model's modules.

    Args:
        modules: the modules, by the name of the part of the model.
        checkpoint_name: gives a parameter's checkpoint name from its part and its name in the module.
    """

    def __init__(self, modules: Mapping[str, nn.Module], checkpoint_name: Callable[[str, str], str]) -> None:
        self._slots = {
            f"{part}.{checkpoint_name(part, name)}": _find_slot(module, name)
            for part, module in modules.items()
            for name, _ in module.named_parameters()
        }
        self.swaps = 0
        """The number of `swap_in` blocks that are open now."""

    def list_current(self) -> dict[str, Tensor]:
        """The parameters that are in place now, by checkpoint name."""
        return {name: owner._parameters[leaf] for name, (owner, leaf) in self._slots.items()}  # type: ignore[misc]

    def find(self, name: str) -> tuple[nn.Module, Tensor]:
        """The module that holds a parameter, and the tensor in place; raises KeyError for an unknown name."""
        owner, leaf = self._slots[name]
        return owner, owner._parameters[leaf]  # type: ignore[return-value]

    def drop(self, prefix: str) -> None:
        """Removes the parameters whose names begin with the prefix."""
        self._slots = {name: slot for name, slot in self._slots.items() if not name.startswith(prefix)}

    def list_owners(self) -> dict[str, nn.Module]:
        """The module that holds each parameter, by the parameter's checkpoint name."""
        return {name: owner for name, (owner, _) in self._slots.items()}

    @contextmanager
    def swap_in(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Swaps these tensors in for the named weights inside the `with` block; afterwards the old ones are back.

        Raises:
            KeyError: no parameter has one of the names.
        """
        if unknown := sorted(set(tensors) - set(self._slots)):
            raise KeyError(f"there is no weight {unknown[0]!r} ({write_count(len(unknown), 'unknown name')})")
        before = {name: self._slots[name][0]._parameters[self._slots[name][1]] for name in tensors}
        self.swaps += 1
        try:
            for name, tensor in tensors.items():
                owner, leaf = self._slots[name]
                owner._parameters[leaf] = tensor  # type: ignore[assignment]
            yield
        finally:
            for name, tensor in before.items():
                owner, leaf = self._slots[name]
                owner._parameters[leaf] = tensor
            self.swaps -= 1


def _find_slot(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return module.get_submodule(path), leaf
