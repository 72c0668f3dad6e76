"""The operators a network may be made of. Whatever is not listed here is refused.

Allowed are deterministic functions of their inputs: nothing that reads or writes files, reuses
foreign memory, returns uninitialised memory, draws random numbers (dropout becomes a module) or
depends in its shape on the data. Names are `aten` operators with their overloads; an operator that
writes in place is admitted through its functional twin only.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch

from app.domain.errors import UnsupportedOperator

_ATEN = {
    "layers with weights": """
        linear.default conv1d.default conv1d.padding conv2d.default conv2d.padding conv3d.default
        conv3d.padding convolution.default conv_transpose1d.default conv_transpose2d.input
        conv_transpose3d.input embedding.default embedding_bag.padding_idx bilinear.default
        _trilinear.default prelu.default
    """,
    "normalisation": """
        batch_norm.default _native_batch_norm_legit_no_training.default
        _native_batch_norm_legit.no_stats instance_norm.default
        layer_norm.default native_layer_norm.default group_norm.default native_group_norm.default
        rms_norm.default _fused_rms_norm.default
        linalg_vector_norm.default norm.Scalar norm.ScalarOpt_dim cosine_similarity.default
        pairwise_distance.default _weight_norm.default
    """,
    "dropout": """
        dropout.default feature_dropout.default alpha_dropout.default feature_alpha_dropout.default
        native_dropout.default rrelu.default
    """,
    "recurrence": """
        lstm.input gru.input rnn_tanh.input rnn_relu.input lstm_cell.default gru_cell.default
        rnn_tanh_cell.default rnn_relu_cell.default
    """,
    "activations": """
        relu.default relu6.default leaky_relu.default elu.default selu.default celu.default
        gelu.default silu.default mish.default hardswish.default hardsigmoid.default
        hardtanh.default hardshrink.default softshrink.default tanh.default sigmoid.default
        log_sigmoid.default softplus.default threshold.default glu.default softmax.int
        log_softmax.int _softmax.default _log_softmax.default
    """,
    "pooling and resampling": """
        max_pool1d.default max_pool2d.default max_pool3d.default max_pool1d_with_indices.default
        max_pool2d_with_indices.default max_pool3d_with_indices.default avg_pool1d.default
        avg_pool2d.default avg_pool3d.default adaptive_avg_pool1d.default
        adaptive_avg_pool2d.default adaptive_avg_pool3d.default _adaptive_avg_pool2d.default
        _adaptive_avg_pool3d.default adaptive_max_pool1d.default adaptive_max_pool2d.default
        adaptive_max_pool3d.default upsample_nearest1d.default upsample_nearest1d.vec
        upsample_nearest2d.default upsample_nearest2d.vec upsample_nearest3d.default
        upsample_nearest3d.vec _upsample_nearest_exact1d.vec _upsample_nearest_exact2d.vec
        _upsample_nearest_exact3d.vec upsample_linear1d.default upsample_linear1d.vec
        upsample_bilinear2d.default upsample_bilinear2d.vec upsample_bicubic2d.default
        upsample_bicubic2d.vec upsample_trilinear3d.default upsample_trilinear3d.vec
        _upsample_bilinear2d_aa.vec _upsample_bicubic2d_aa.vec grid_sampler.default
        grid_sampler_2d.default affine_grid_generator.default pixel_shuffle.default
        pixel_unshuffle.default channel_shuffle.default im2col.default col2im.default
    """,
    "padding": """
        pad.default constant_pad_nd.default reflection_pad1d.default reflection_pad2d.default
        reflection_pad3d.default replication_pad1d.default replication_pad2d.default
        replication_pad3d.default
    """,
    "attention and products": """
        scaled_dot_product_attention.default matmul.default mm.default bmm.default mv.default
        dot.default vdot.default addmm.default addmv.default baddbmm.default addbmm.default
        einsum.default inner.default outer.default tensordot.default linalg_matmul.default
        kron.default
    """,
    "arithmetic": """
        add.Tensor add.Scalar sub.Tensor sub.Scalar rsub.Tensor rsub.Scalar mul.Tensor mul.Scalar
        div.Tensor div.Scalar div.Tensor_mode div.Scalar_mode true_divide.Tensor
        floor_divide.default floor_divide.Scalar remainder.Tensor remainder.Scalar fmod.Tensor
        fmod.Scalar pow.Tensor_Tensor pow.Tensor_Scalar pow.Scalar neg.default abs.default
        square.default sqrt.default rsqrt.default reciprocal.default exp.default exp2.default
        expm1.default log.default log2.default log10.default log1p.default sin.default cos.default
        tan.default asin.default acos.default atan.default atan2.default sinh.default cosh.default
        erf.default erfc.default sign.default sgn.default floor.default ceil.default round.default
        round.decimals trunc.default frac.default clamp.default clamp.Tensor clamp_min.default
        clamp_min.Tensor clamp_max.default clamp_max.Tensor maximum.default minimum.default
        addcmul.default addcdiv.default lerp.Scalar lerp.Tensor logaddexp.default xlogy.Tensor
        nan_to_num.default cumsum.default cumprod.default logcumsumexp.default sinc.default
        logit.default heaviside.default special_expit.default diff.default
    """,
    "arithmetic under other names": """
        negative.default absolute.default multiply.Tensor subtract.Tensor divide.Tensor
        divide.Tensor_mode true_divide.Scalar clip.default clip.Tensor copysign.Tensor hypot.default
        greater.Tensor greater.Scalar greater_equal.Tensor greater_equal.Scalar less.Tensor
        less.Scalar less_equal.Tensor less_equal.Scalar not_equal.Tensor not_equal.Scalar
        arctan2.default arctan.default arcsin.default arccos.default fmax.default fmin.default
        asinh.default acosh.default atanh.default erfinv.default lgamma.default rad2deg.default
        deg2rad.default float_power.Tensor_Scalar
        chain_matmul.default linalg_multi_dot.default linalg_vecdot.default linalg_cross.default
        cross.default cdist.default _euclidean_dist.default renorm.default
    """,
    "complex numbers and spectra": """
        view_as_complex.default view_as_real.default real.default imag.default complex.default
        polar.default angle.default conj.default _conj.default resolve_conj.default
        resolve_neg.default fft_fft.default fft_ifft.default fft_rfft.default fft_irfft.default
        fft_fft2.default fft_ifft2.default fft_rfft2.default fft_irfft2.default fft_fftn.default
        fft_ifftn.default fft_rfftn.default fft_irfftn.default fft_fftshift.default
        fft_ifftshift.default
    """,
    "reductions": """
        sum.default sum.dim_IntList mean.default mean.dim prod.default prod.dim_int std.default
        std.dim std.correction var.default var.dim var.correction var_mean.default var_mean.dim
        var_mean.correction std_mean.correction amax.default amin.default aminmax.default
        max.default max.dim max.other min.default min.dim min.other argmax.default argmin.default
        median.dim logsumexp.default all.default all.dim any.default any.dim topk.default
        sort.default sort.stable argsort.default argsort.stable cummax.default cummin.default
        count_nonzero.dim_IntList nansum.default nanmean.default median.default kthvalue.default
        linalg_norm.default frobenius_norm.dim
    """,
    "comparisons and choice": """
        eq.Tensor eq.Scalar ne.Tensor ne.Scalar lt.Tensor lt.Scalar le.Tensor le.Scalar gt.Tensor
        gt.Scalar ge.Tensor ge.Scalar isnan.default isinf.default isfinite.default
        logical_and.default logical_or.default logical_not.default logical_xor.default
        bitwise_and.Tensor bitwise_and.Scalar bitwise_or.Tensor bitwise_or.Scalar
        bitwise_not.default bitwise_xor.Tensor __and__.Tensor __or__.Tensor where.self
        where.ScalarSelf where.ScalarOther where.Scalar masked_fill.Scalar masked_fill.Tensor
        isin.Tensor_Tensor
    """,
    "shapes": """
        view.default view_as.default reshape.default reshape_as.default _unsafe_view.default
        flatten.using_ints unflatten.int squeeze.default squeeze.dim squeeze.dims unsqueeze.default
        permute.default transpose.int t.default numpy_T.default mT.default swapaxes.default
        movedim.int movedim.intlist expand.default expand_as.default broadcast_to.default
        contiguous.default clone.default detach.default alias.default lift_fresh_copy.default
        slice.Tensor select.int narrow.default split.Tensor split.sizes split_with_sizes.default
        chunk.default unbind.int unfold.default tensor_split.sections cat.default concat.default
        stack.default hstack.default vstack.default repeat.default tile.default
        repeat_interleave.self_int flip.default roll.default rot90.default index.Tensor
        index_select.default gather.default take_along_dim.default scatter.src scatter.value
        scatter_add.default index_add.default index_copy.default index_put.default
        slice_scatter.default select_scatter.default diagonal.default diag_embed.default
        tril.default triu.default one_hot.default meshgrid.indexing meshgrid.default
        atleast_1d.default atleast_2d.default broadcast_tensors.default fill.Scalar
        fill.Tensor ravel.default swapdims.default moveaxis.int moveaxis.intlist adjoint.default
        mH.default matrix_H.default atleast_3d.default column_stack.default dstack.default
        row_stack.default concatenate.default fliplr.default flipud.default hsplit.int vsplit.int
        dsplit.int tensor_split.indices unsafe_chunk.default unsafe_split.Tensor
        unsafe_split_with_sizes.default diag.default
        diagonal_scatter.default index_fill.int_Scalar masked_scatter.default scatter_reduce.two
        cartesian_prod.default block_diag.default bucketize.Tensor searchsorted.Tensor
        native_channel_shuffle.default
    """,
    "number types": """
        to.dtype to.dtype_layout to.device to.other _to_copy.default type_as.default
    """,
    "new tensors": """
        arange.default arange.start arange.start_step linspace.default zeros.default
        zeros_like.default ones.default ones_like.default full.default full_like.default
        scalar_tensor.default eye.default eye.m new_zeros.default new_ones.default new_full.default
        tril_indices.default triu_indices.default
    """,
    "sizes": "sym_size.int sym_numel.default",
}

ALLOWED = frozenset(f"torch.ops.aten.{name}" for names in _ATEN.values() for name in names.split())

SYMBOLIC: dict[str, Callable[..., Any]] = {
    f"_operator.{name}": getattr(operator, name)
    for name in (
        *("add", "sub", "mul", "floordiv", "mod", "neg", "pos", "truediv"),
        *("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_"),
    )
} | {
    "math.trunc": math.trunc,
    "torch.sym_max": torch.sym_max,
    "torch.sym_min": torch.sym_min,
    "torch.sym_int": torch.sym_int,
    "torch.sym_float": torch.sym_float,
    "torch.sym_not": torch.sym_not,
}
"""Arithmetic on sizes. Powers and shifts are left out: they make numbers without end."""

CHECKS = frozenset(
    f"torch.ops.aten.{name}"
    for name in (
        "_assert_tensor_metadata.default",
        "_assert_scalar.default",
        "_assert_async.msg",
        "sym_constrain_range.default",
        "sym_constrain_range_for_size.default",
    )
)
"""Operators that only check something at export: they are left out of the canonical form."""


def functional_twin(target: str) -> str | None:
    """The functional form of an in-place operator (`relu_` -> `relu`), None for other operators."""
    prefix, _, name = target.partition("torch.ops.aten.")
    base, _, overload = name.partition(".")
    if prefix or not base.endswith("_") or base.startswith("__"):
        return None
    if base == "copy_":
        return "torch.ops.aten.expand_as.default"
    if base == "zero_":
        return "torch.ops.aten.zeros_like.default"
    return f"torch.ops.aten.{base[:-1]}.{overload}"


def resolve(target: str, path: str) -> Callable[..., Any]:
    """The function of an allowed operator. Raises UnsupportedOperator, naming it and the layer."""
    if target in SYMBOLIC:
        return SYMBOLIC[target]
    if target not in ALLOWED:
        name = target.removeprefix("torch.ops.")[:120]
        where = f"the layer {path}" if path else "the network's own forward function"
        hint = (
            "It writes into a tensor of the network, as some layers do in training mode only: "
            "call model.eval() and export again."
            if name.endswith((".out", "_out"))
            else "Replace it in the network with standard torch.nn layers or tensor arithmetic and "
            "export again."
        )
        raise UnsupportedOperator(
            f"The operator {name} in {where} is not on the list of allowed operators.", hint
        )
    base, _, overload = target.removeprefix("torch.ops.aten.").partition(".")
    return getattr(getattr(torch.ops.aten, base), overload)
