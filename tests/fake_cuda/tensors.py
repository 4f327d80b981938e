"""Tensors that say `cuda:0`, hold a CPU tensor, really compute, and refuse to mix devices as CUDA does.

Tensors of two devices in one operation raise (0-dim CPU operands of pointwise operations may mix, CPU indices may
index, `copy_` and `to` cross over), generators must match the device, integer matmul and linear algebra in half
precision raise. `counting.SYNCS` counts, by line of the project, what makes the host wait for a device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from .counting import UPCAST, note, note_copied, track
from .operations import COPIES, INDEXED, MATMUL, NO_HALF, NORMS, RANDOM, SCALAR_OK, SYNC_OPS, WAITING

_Gen = torch.Generator
CUDA0 = torch.device("cuda:0")


class DeviceMismatch(RuntimeError):
    pass


class FakeGenerator(_Gen):
    """A generator that says which device it is for; numbers come from a CPU one."""

    def __new__(cls, device="cpu"):
        return super().__new__(cls, "cpu")

    def __init__(self, device="cpu"):
        self._where = torch.device(device)

    @property
    def device(self):
        return CUDA0 if self._where.type == "cuda" else self._where


CUDA_GEN = FakeGenerator("cuda")
CUDA_GEN.manual_seed(1234)


class FakeCuda(torch.Tensor):
    @staticmethod
    def __new__(cls, elem, requires_grad=False):
        r = torch.Tensor._make_wrapper_subclass(
            cls,
            elem.size(),
            strides=elem.stride(),
            storage_offset=elem.storage_offset(),
            dtype=elem.dtype,
            layout=elem.layout,
            device=CUDA0,
            requires_grad=requires_grad,
        )
        r.elem = elem
        track(r, elem)
        return r

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})

    def tolist(self):
        note("item")
        return self.elem.detach().tolist()

    def untyped_storage(self):
        return self.elem.untyped_storage()

    def data_ptr(self):
        return self.elem.data_ptr()

    def storage(self):
        return self.elem.storage()

    def __repr__(self, *, tensor_contents=None):
        return f"FakeCuda({self.elem!r})"

    def __deepcopy__(self, memo):
        if id(self) in memo:
            return memo[id(self)]
        new = FakeCuda(self.elem.detach().clone(), self.requires_grad)
        if getattr(self, "_is_param", False):
            new._is_param = True
        memo[id(self)] = new
        return new

    def __reduce_ex__(self, proto):
        return (_rebuild, (self.elem.detach(), self.requires_grad))


def _rebuild(elem, rg):
    return FakeCuda(elem, rg)


ASKED: list = []  # device of the generator in the call under way: C++ hands on a plain one


def where_of(gen):
    return (ASKED[-1] if ASKED else gen.device.type) if gen is not None else None


QUANTILES = {torch.quantile, torch.nanquantile, torch.Tensor.quantile, torch.Tensor.nanquantile}


class Functions(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in QUANTILES and isinstance(
            args[0], FakeCuda
        ):  # its C++ squeezes in place, which a wrapper can't follow
            plain = tree_map(lambda a: a.elem if isinstance(a, FakeCuda) else a, (args, kwargs))
            return FakeCuda(func(*plain[0], **plain[1]))
        gen = next((a for a in (*args, *kwargs.values()) if isinstance(a, _Gen)), None)
        if gen is None:
            return func(*args, **kwargs)
        ASKED.append(gen.device.type)
        try:
            return func(*args, **kwargs)
        finally:
            ASKED.pop()


def dispatch(func, args, kwargs):
    flat, _ = tree_flatten((args, kwargs))
    fakes = [a for a in flat if isinstance(a, FakeCuda)]
    cpus = [a for a in flat if isinstance(a, torch.Tensor) and not isinstance(a, FakeCuda)]
    name = func._schema.name.partition("::")[2] if hasattr(func, "_schema") else str(func)
    device = kwargs.get("device")
    if device is not None:
        device = torch.device(device)
    if func is torch.ops.prim.device.default:
        return CUDA0 if fakes else torch.device("cpu")
    to_cuda = device is not None and device.type == "cuda"
    if to_cuda and device.index not in (None, 0):
        raise RuntimeError("CUDA error: invalid device ordinal")
    if name in ("is_pinned",):
        return False
    if name in ("_pin_memory", "pin_memory"):
        return args[0]
    if device is not None and device.type == "mps":
        raise RuntimeError("no mps here")
    if not fakes and not to_cuda:
        gen = kwargs.get("generator")
        if where_of(gen) == "cuda":
            raise RuntimeError("Expected a 'cpu' device type for generator but found 'cuda'")
        return func(*args, **kwargs)
    if name in COPIES:
        later = bool(kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
        src_fake = isinstance(args[1] if name == "copy_" else args[0], FakeCuda)
        dst_fake = isinstance(args[0], FakeCuda) if name == "copy_" else (to_cuda or (device is None and bool(fakes)))
        if src_fake and not dst_fake:
            note("d2h")
            note_copied((args[1] if name == "copy_" else args[0]).elem)
        elif dst_fake and not src_fake and not later:  # a small tensor is staged at once, and nothing waits
            note("h2d")
    else:
        check(func, name, args, kwargs, fakes, cpus)
    if name in SYNC_OPS:
        note(WAITING.get(name, name))
    if name in INDEXED and any(isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
        note("bool-index")
    if name in INDEXED and any(
        isinstance(i, torch.Tensor) and not isinstance(i, FakeCuda) for i in args[1] if i is not None
    ):
        note("h2d(index)")
    gen = kwargs.get("generator")
    gens = [a for a in args if isinstance(a, _Gen)] + ([gen] if gen is not None else [])
    for g in gens:
        if where_of(g) != "cuda":
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
    owners = {id(f.elem): f for f in fakes}
    iargs, ikw = tree_map(_unwrap, args), dict(tree_map(_unwrap, kwargs))
    if device is not None:
        ikw["device"] = torch.device("cpu")
    if ikw.get("pin_memory"):
        ikw["pin_memory"] = False
    if name in RANDOM and not gens and any(a.name == "generator" for a in func._schema.arguments):
        ikw["generator"] = CUDA_GEN
    try:
        out = func(*iargs, **ikw)
    except (RuntimeError, NotImplementedError) as e:
        if "not implemented for" not in str(e) or not any(x in str(e) for x in ("Half", "BFloat16")):
            raise
        if name.startswith("linalg") or name in NO_HALF:
            raise
        UPCAST[name] += 1
        low = next(f.dtype for f in fakes if f.dtype in (torch.half, torch.bfloat16))
        uargs = tree_map(_widen, iargs)
        out = func(*uargs, **tree_map(_widen, ikw))
        if name.endswith("_") and not name.endswith("__"):
            iargs[0].copy_(out)
            out = iargs[0]
        else:
            out = tree_map(lambda a: a.to(low) if isinstance(a, torch.Tensor) and a.dtype == torch.float32 else a, out)
    on_cuda = to_cuda or device is None
    if name == "copy_" or (name.endswith("_") and not name.endswith("__") and not name.startswith("_foreach")):
        if isinstance(args[0], FakeCuda):
            if args[0].shape != args[0].elem.shape:
                raise AssertionError(f"fake_cuda: {name} resized a wrapper")
            return args[0] if isinstance(out, torch.Tensor) else out
        return args[0] if isinstance(out, torch.Tensor) else out
    if not on_cuda:
        return out

    def wrap(o):
        if not isinstance(o, torch.Tensor):
            return o
        if isinstance(o, FakeCuda):
            return o
        known = owners.get(id(o))
        if known is not None:
            if known.shape != o.shape or known.stride() != o.stride():
                raise AssertionError(f"fake_cuda: {name} changed a wrapper's shape")
            return known
        return FakeCuda(o)

    return tree_map(wrap, out)


def _unwrap(a: Any) -> Any:
    return a.elem if isinstance(a, FakeCuda) else a


def _widen(a: Any) -> Any:
    return a.float() if isinstance(a, torch.Tensor) and a.dtype in (torch.half, torch.bfloat16) else a


def check(func, name, args, kwargs, fakes, cpus):
    """Raises where CUDA would."""
    if name in MATMUL and any(not f.dtype.is_floating_point and not f.dtype.is_complex for f in fakes):
        raise RuntimeError(f'"{name}_cuda" not implemented for {fakes[0].dtype}')
    algebra = name.startswith(("linalg_", "_linalg")) and name not in NORMS
    if (algebra or name in NO_HALF) and any(f.dtype in (torch.half, torch.bfloat16) for f in fakes):
        raise RuntimeError(f'"{name}_cuda" not implemented for {fakes[0].dtype}')
    if not cpus or not fakes:
        return
    if name in INDEXED:
        if not isinstance(args[0], FakeCuda):
            raise DeviceMismatch(
                f"indices should be either on cpu or on the same device as the indexed tensor (cpu) [{name}]"
            )
        rest = [a for a in args[2:] if isinstance(a, torch.Tensor)]
        bad = [a for a in rest if not isinstance(a, FakeCuda) and a.dim() > 0]
    elif name in SCALAR_OK or torch.Tag.pointwise in getattr(func, "tags", ()) or name.startswith("_foreach"):
        bad = [a for a in cpus if a.dim() > 0]
        if name.endswith("_") and not name.startswith("_") and not isinstance(args[0], FakeCuda):
            bad = [args[0]]
    else:
        bad = cpus
    if bad:
        raise DeviceMismatch(
            f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 "
            f"and cpu! [{name}: cpu operand {tuple(bad[0].shape)} {bad[0].dtype}]"
        )


class Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})
