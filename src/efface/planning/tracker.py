"""Counts the bytes of live tensors, operation by operation, on any device, without the allocator's rounding.

Every storage that an operation returns counts until it is freed; views of one storage count once. Memory that a kernel
uses inside an operation is not seen, nor is an allocator's reserve.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any, final

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@final
class AllocationTracker(TorchDispatchMode):
    """Counts in `live` the bytes of tensors that were made inside the block and not yet freed; `peak` is its maximum.

    `moments` lists the operations that made new storages, in their order, each with the value of `live` after it.

    Args:
        known: tensors that are there already and do not count, such as a model's weights.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        TorchDispatchMode.__init__(self)
        self.live = self.peak = 0
        self.moments: list[tuple[Any, int]] = []
        self.known = [tensor.untyped_storage() for tensor in known]
        self.seen: dict[int, Any] = {id(storage): None for storage in self.known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out, before = func(*args, **(kwargs or {})), self.live
        for leaf in (out,) if isinstance(out, Tensor) else tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._note(leaf)
        if self.live > before:
            self.moments.append((func, self.live))
        return out

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self.seen:
            return

        def freed(_: Any) -> None:
            del self.seen[key]
            self.live -= size

        self.seen[key] = weakref.ref(storage, freed)
        self.live += size
        self.peak = max(self.peak, self.live)


def count_bytes(tensors: Iterable[Tensor]) -> int:
    """Counts the bytes of these tensors' storages, each storage once."""
    storages = {_find_address(t): t.untyped_storage() for t in tensors}
    return sum(storage.nbytes() for storage in storages.values())


def _find_address(tensor: Tensor) -> int:
    """A key for a storage: its address, or for one without memory the object itself."""
    storage = tensor.untyped_storage()
    return storage._cdata if isinstance(tensor, FakeTensor) else storage.data_ptr() or storage._cdata
