"""The operations of torch that the stand-in device treats in a way of their own, by name."""

from __future__ import annotations

RANDOM = {
    "normal_",
    "uniform_",
    "random_",
    "bernoulli_",
    "exponential_",
    "geometric_",
    "multinomial",
    "randperm",
    "randint",
    "randn",
    "rand",
    "normal",
    "bernoulli",
    "randn_like",
    "rand_like",
    "randint_like",
    "cauchy_",
    "log_normal_",
}
COPIES = {"copy_", "_to_copy", "copy", "_copy_from", "set_"}
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
SCALAR_OK = {
    "fill_",
    "fill",
    "masked_fill",
    "masked_fill_",
    "where",
    "full",
    "lerp",
    "lerp_",
    "clamp",
    "clamp_",
    "index_fill_",
    "index_fill",
    "linspace",
    "arange",
    "_local_scalar_dense",
    "native_layer_norm",
    "item",
    "_amp_foreach_non_finite_check_and_unscale_",
    "_fused_adam_",
    "_fused_adamw_",
    "_fused_sgd_",
}
MATMUL = {"mm", "bmm", "addmm", "baddbmm", "addbmm", "matmul", "convolution", "dot", "mv", "addmv", "linear", "_int_mm"}
NO_HALF = {
    "cdist",
    "_cdist_forward",
    "_cdist_backward",
    "geqrf",
    "cholesky",
    "inverse",
    "svd",
    "pinverse",
    "lstsq",
    "triangular_solve",
}
NORMS = {f"linalg_{name}" for name in ("vector_norm", "norm", "matrix_norm", "cross", "vecdot", "diagonal")}
SYNC_OPS = {
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "equal",
    "is_nonzero",
    "unique_dim",
    "_unique2",
    "unique_consecutive",
    "allclose",
    "bincount",
    "repeat_interleave",
}
WAITING = {"_local_scalar_dense": "item"}
