"""The state of a model: its weights, which are swapped by reference, a guide, and how the network runs."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .adapter import Adapter
from .cond import Cond
from .fingerprint import compute_digests
from .guider import Guider
from .offload import ENCODERS
from .quantised import is_packed, unpack
from .trajectory_cache import TrajectoryCache
from .weights import Weights


class Swappable(Adapter):
    """A model whose weights and guide can be exchanged for a while, and are then restored exactly."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._weights = Weights(modules, self.to_checkpoint_name)
        self.network = modules[self.denoiser]
        self._encoded: dict[str, Cond] = {}
        self._guide: Guider | None = None
        self._fingerprint: dict[str, str] | None = None
        self.recordings = TrajectoryCache()
        self._stored: Mapping[str, Tensor] = {}
        self.draw_batch = self.gradient_rows = 0
        self.parked = self.encoders_dropped = False
        self.steady: set[int] | None = None

    @property
    def weights(self) -> dict[str, Tensor]:
        """The parameters that are in place now, by checkpoint name."""
        return self._weights.list_current()

    @property
    def owners(self) -> dict[str, nn.Module]:
        """The module that holds each parameter, by the parameter's checkpoint name."""
        return self._weights.list_owners()

    @contextmanager
    def swap_in(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Swaps these tensors in for the named weights, by reference, inside the `with` block.

        Raises KeyError where no weight has one of the names. Never enter or leave between a student's forward and its
        backward where activations are recomputed.
        """
        encoded = self._encoded
        with self._weights.swap_in(tensors):
            if any(not name.startswith(f"{self.denoiser}.") for name in tensors):
                self._encoded = {}
            try:
                yield
            finally:
                self._encoded = encoded

    @property
    def untouched(self) -> bool:
        """Whether every weight in place is the base's, and no guide is in place."""
        return not self._weights.swaps and self._guide is None

    @contextmanager
    def guided_by(self, guide: Guider) -> Iterator[None]:
        """Lets the guide act in `sample` and `images` inside the `with` block; `predict` stays the network's own.

        Raises ValueError where another guide is in place.
        """
        if self._guide is not None:
            raise ValueError(f"{self.name} is under the guide {type(self._guide).__name__} already; leave that first")
        guide.check(self)  # type: ignore[arg-type]  (what predicts is `Model`, which this is a part of)
        encoded = self._encoded
        self._guide, self._encoded = guide, {}
        try:
            yield
        finally:
            self._guide, self._encoded = None, encoded

    @contextmanager
    def unguided(self) -> Iterator[None]:
        """Takes the guide away inside the `with` block, and puts it back afterwards."""
        guide, encoded = self._guide, self._encoded
        self._guide, self._encoded = None, {}
        try:
            yield
        finally:
            self._guide, self._encoded = guide, encoded

    def quantise(self, bits: int, stored: Mapping[str, Tensor]) -> None:
        """Notes that the denoiser's linear layers are held in this number of bits, and their weights in the files."""
        self.quantised, self._stored = bits, stored

    def get_plain_weight(self, name: str) -> Tensor:
        """The value of a weight that is in place now, dequantised where it is held in 4 or 8 bits."""
        owner, weight = self._weights.find(name)
        return unpack(owner, weight, self.dtype) if is_packed(weight) else weight

    def fingerprint(self) -> dict[str, str]:
        """Digests of the base's fp32, fp16 and bf16 casts: if one is equal, the base is the same at some dtype.

        They are computed once, from the weights in place at the first call, or from the files of a quantised denoiser.
        """
        if self._fingerprint is None:
            self._fingerprint = compute_digests(ChainMap(self._stored, self.weights))  # type: ignore[arg-type]
        return dict(self._fingerprint)

    def forget_encodings(self) -> None:
        """Empties the cache of encoded prompts, unless the text encoders were dropped.

        The last bits of an encoding depend on the prompts that were encoded in the same batch (in SDXL's pooled
        embedding, for example). A training calls this first, so that its result does not depend on earlier work.
        """
        if not self.encoders_dropped:
            self._encoded.clear()

    def drop_text_encoders(self) -> None:
        """Frees the text encoders' memory; from then on only prompts that were encoded before can be used.

        The fingerprint is taken first, so that edits made afterwards fit the whole model.

        Raises:
            ValueError: a guide or an edit is in place, which may read prompts anew.
        """
        if not self.untouched:
            raise ValueError(f"an edit or a guide is in place on {self.name}; leave it before dropping text encoders")
        self.fingerprint()
        self._weights.drop("text_encoder")
        for name in ENCODERS:
            if getattr(self.pipeline, name, None) is not None:
                setattr(self.pipeline, name, None)
        for name, held in list(vars(self).items()):
            if name in ("text_encoder", "text_encoders", "towers", "t5") and held is not None:
                setattr(self, name, None)
        self.encoders_dropped = True

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Makes no weight of the base require a gradient inside the `with` block, which saves activations."""
        asking = [tensor for tensor in self.weights.values() if tensor.requires_grad and tensor.is_leaf]
        try:
            for tensor in asking:
                tensor.requires_grad_(False)
            yield
        finally:
            for tensor in asking:
                tensor.requires_grad_(True)

    @property
    def loss_factor(self) -> float:
        """The factor of losses before they are differentiated: 4096 where gradients pass through fp16, else 1.

        A gradient below 6e-8 is zero in fp16 (Micikevicius et al., ICLR 2018, arXiv 1710.03740, section 3.2).
        """
        return 4096.0 if torch.float16 in (self.dtype, self.compute) else 1.0

    @contextmanager
    def uncompiled(self) -> Iterator[None]:
        """Runs the network uncompiled inside the `with` block, so that hooks on its layers are called.

        A compiled network would ignore hooks that were added after its compilation.
        """
        network, steady = self.network, self.steady
        compiled = network._compiled_call_impl
        network._compiled_call_impl, self.steady = None, None
        try:
            yield
        finally:
            network._compiled_call_impl, self.steady = compiled, steady
