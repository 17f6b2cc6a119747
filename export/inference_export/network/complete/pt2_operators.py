"""The operators that a .pt2 file may name: those that compute tensors from tensors, and nothing else.

ATen has others: ``from_file`` maps a file into memory, ``empty`` shows what memory held before.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

_ATEN = re.compile(r"torch\.ops\.aten\.(\w+)\.(\w+)")
_PYTHON: dict[str, Callable[..., Any]] = {
    f"_operator.{name}": getattr(operator, name)
    for name in (
        "add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "getitem", "eq", "ne", "lt", "le", "gt", "ge",
    )
}  # fmt: skip
# What exports write to repeat their assumptions. They compute nothing.
_ASSERTIONS = frozenset({"_assert_scalar", "_assert_tensor_metadata", "_assert_async", "sym_constrain_range_for_size"})
_NAMES = """
_adaptive_avg_pool2d _log_softmax _native_batch_norm_legit_no_training _softmax _to_copy _unsafe_index _unsafe_view
abs acos adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool2d add add_ addcdiv addcmul addmm alias all amax
amin any arange argmax argmin asin atan atan2 avg_pool1d avg_pool2d baddbmm batch_norm bitwise_and bitwise_not
bitwise_or bitwise_xor bmm broadcast_to cat ceil celu channel_shuffle chunk clamp clamp_ clamp_max clamp_min clone
concat constant_pad_nd contiguous conv1d conv2d conv_transpose2d convolution copy copy_ cos cosh cumsum detach detach_
diagonal div div_ dot dropout dropout_ einsum elu elu_ embedding eq erf exp exp_ expand expand_as expm1 fill fill_
flatten flip floor floor_divide fmod full full_like gather ge gelu glu grid_sampler grid_sampler_2d group_norm gt
hardshrink hardsigmoid hardsigmoid_ hardswish hardswish_ hardtanh hardtanh_ index index_select instance_norm isfinite
isinf isnan layer_norm le leaky_relu leaky_relu_ lerp lift_fresh_copy linalg_norm linalg_vector_norm linear log log10
log1p log2 log_sigmoid log_softmax logical_and logical_not logical_or logical_xor logsumexp lt masked_fill
masked_fill_ matmul max max_pool1d max_pool2d max_pool2d_with_indices maximum mean meshgrid min minimum mish mish_ mm
movedim mul mul_ multiply narrow native_group_norm native_layer_norm ne neg neg_ norm numpy_T ones ones_like pad
permute pixel_shuffle pixel_unshuffle pow prelu prod reciprocal reflection_pad2d relu relu6 relu6_ relu_ remainder
repeat repeat_interleave replication_pad2d reshape reshape_as rms_norm roll round rsqrt rsub scalar_tensor
scaled_dot_product_attention scatter select select_scatter selu selu_ sigmoid sigmoid_ sign silu silu_ sin sinh slice
slice_scatter softmax softplus softshrink split split_with_sizes sqrt sqrt_ square squeeze squeeze_ stack std std_mean
sub sub_ subtract sum swapaxes sym_size t tan tanh tanh_ tile to topk transpose transpose_ tril triu true_divide trunc
type_as unbind unflatten unfold unsqueeze unsqueeze_ upsample_bicubic2d upsample_bilinear2d upsample_nearest2d var
var_mean view view_as where zero_ zeros zeros_like
"""
_COMPUTING = frozenset(_NAMES.split())
# The texts that these operators take, such as how to round and how to pad. No file names.
TEXTS = frozenset({
    "none", "tanh", "floor", "trunc", "same", "valid", "constant", "reflect", "replicate", "circular", "linear",
    "bilinear", "nearest", "bicubic", "ij", "xy",
})  # fmt: skip


class UnknownOperatorError(ValueError):
    """A name that is none of the operators a network needs."""


def find_operator(name: str) -> Callable[..., Any] | None:
    """Find an operator by its name in a .pt2 file.

    Args:
        name: For example ``torch.ops.aten.relu.default``.

    Returns:
        The operator, to be called with keywords alone if it is one of ATen's, and with positions alone if it is one of
        Python's; None: an assertion, which computes nothing.

    Raises:
        UnknownOperatorError: It is none of those that networks need.
    """
    import torch

    if name in _PYTHON:
        return _PYTHON[name]
    match = _ATEN.fullmatch(name)
    if match and match[1] in _ASSERTIONS:
        return None
    if match and match[1] in _COMPUTING:
        packet = getattr(torch.ops.aten, match[1], None)
        if packet is not None and match[2] in packet.overloads() and "out" not in match[2]:
            found: Callable[..., Any] = getattr(packet, match[2])
            return found
    raise UnknownOperatorError(name)
