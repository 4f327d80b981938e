"""Puts the stand-in device in place of CUDA, in this process and for good."""

from __future__ import annotations

import collections
import contextlib

import torch
import torch.cuda.amp.common
from torch.optim.optimizer import _foreach_supported_types

from . import GUARD
from .counting import MEM, note
from .tensors import CUDA0, CUDA_GEN, FakeCuda, FakeGenerator, Functions, Mode


class _Props:
    name, major, minor, total_memory, multi_processor_count = "Fake CUDA", 9, 0, 24 * 2**30, 100
    gcnArchName = ""
    warp_size, L2_cache_size = 32, 2**25


class _Event:
    def __init__(self, *a, **k):
        pass

    def record(self, *a):
        pass

    def wait(self, *a):
        pass

    def query(self):
        return True

    def synchronize(self):
        pass

    def elapsed_time(self, other):
        return 0.0


class _Stream(_Event):
    device = CUDA0

    def wait_stream(self, s):
        pass

    def wait_event(self, e):
        pass

    def record_event(self, e=None):
        return e or _Event()

    def __enter__(self):
        return self

    def __exit__(self, *a):
        pass


class _Device(contextlib.nullcontext):
    def __init__(self, device=None):
        super().__init__()


MODE = None
FREE = {"free": 20 * 2**30, "total": 24 * 2**30, "bf16": True}


def install(memory_gb=24, bf16=True):
    global MODE
    FREE.update(total=int(memory_gb * 2**30), free=int((memory_gb - 1) * 2**30), bf16=bf16)
    c = torch.cuda
    GUARD.fake_guard()
    torch._C._set_only_lift_cpu_tensors(True)
    torch.autograd.set_multithreading_enabled(False)
    c._lazy_init = lambda: None
    c.is_available = lambda: True
    c.is_initialized = lambda: True
    c.init = lambda: None
    c.device_count = lambda: 1
    c.current_device = lambda: 0
    c.set_device = lambda d: None
    c.device = _Device
    c.synchronize = lambda d=None: note("synchronize")
    c.empty_cache = lambda: note("empty_cache")
    c.ipc_collect = lambda: None
    c.memory_allocated = lambda d=None: MEM["now"]
    c.memory_reserved = lambda d=None: MEM["now"]
    c.max_memory_allocated = lambda d=None: MEM["peak"]
    c.max_memory_reserved = lambda d=None: MEM["peak"]
    c.reset_peak_memory_stats = lambda d=None: MEM.update(peak=MEM["now"])
    c.reset_max_memory_allocated = c.reset_peak_memory_stats
    c.memory_stats = lambda d=None: collections.defaultdict(int)
    c.mem_get_info = lambda d=None: (FREE["free"] - MEM["now"], FREE["total"])
    c.get_device_properties = lambda d=None: _Props
    c.get_device_name = lambda d=None: "Fake CUDA"
    c.get_device_capability = lambda d=None: (9, 0)
    c.is_bf16_supported = lambda including_emulation=True: FREE["bf16"] or including_emulation
    c.manual_seed = c.manual_seed_all = lambda s: CUDA_GEN.manual_seed(s)
    c.get_rng_state = lambda d="cuda": CUDA_GEN.get_state()
    c.set_rng_state = lambda s, d="cuda": CUDA_GEN.set_state(s)
    c.get_rng_state_all = lambda: [CUDA_GEN.get_state()]
    c.set_rng_state_all = lambda s: CUDA_GEN.set_state(s[0])
    c.Event, c.Stream = _Event, _Stream
    c.current_stream = lambda d=None: _Stream()
    c.default_stream = lambda d=None: _Stream()
    c.stream = lambda s: contextlib.nullcontext()
    c.is_current_stream_capturing = lambda: False
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.Generator = FakeGenerator
    torch.version.cuda = "12.8"
    torch.__future__.set_swap_module_params_on_conversion(True)
    real_apply, fut = torch.nn.Module._apply, torch.__future__

    def _apply(self, fn, recurse=True):
        try:
            return real_apply(self, fn, recurse)
        except RuntimeError as e:  # a graph holds the parameter: CUDA would do param.data = ..., here a new one
            if "Couldn't swap" not in str(e):
                raise
            fut.set_swap_module_params_on_conversion(False)
            fut.set_overwrite_module_params_on_conversion(True)
            try:
                return real_apply(self, fn, recurse)
            finally:
                fut.set_swap_module_params_on_conversion(True)
                fut.set_overwrite_module_params_on_conversion(False)

    torch.nn.Module._apply = _apply
    _foreach_supported_types.append(FakeCuda)
    torch.Tensor.pin_memory = lambda self, device=None: self
    MODE = Mode()
    MODE.__enter__()
    Functions().__enter__()
    return MODE
