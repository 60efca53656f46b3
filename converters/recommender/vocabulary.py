"""The operators that a recommender's program may have besides its look-ups and products, by what they do to labels."""

from __future__ import annotations

__all__ = ["ACTIVATIONS", "COMPARISONS", "IGNORED", "MOVES"]

MOVES = {
    "view", "_unsafe_view", "reshape", "permute", "transpose", "t", "select", "slice", "split", "split_with_sizes",
    "unbind", "squeeze", "unsqueeze", "expand", "clone", "alias", "contiguous", "index_select", "gather", "flatten",
    "unflatten", "narrow", "chunk", "repeat", "flip", "roll", "diagonal", "detach", "detach_", "lift_fresh_copy",
    "select_copy", "slice_copy", "permute_copy", "view_copy", "unsqueeze_copy", "squeeze_copy", "expand_copy",
    "tril", "triu", "masked_select", "take", "dropout", "movedim", "swapaxes", "as_strided", "squeeze_",
    "copy", "split_copy", "unbind_copy", "stack", "cat", "concat", "where", "constant_pad_nd", "feature_dropout",
}  # fmt: skip
"""They only move data, so that they can be run on the labels themselves."""

ACTIVATIONS = {"relu", "sigmoid", "tanh"}

COMPARISONS = {"ne", "eq", "gt", "ge", "lt", "le", "logical_not", "bitwise_not", "logical_and", "bitwise_and",
               "reciprocal", "maximum", "minimum", "clamp", "clamp_min", "clamp_max", "logical_or",
               "bitwise_or"}  # fmt: skip
"""Element-wise operators of masks and of ids, understood by what stands above them."""

IGNORED = {"_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range",
           "sym_constrain_range_for_size", "sym_constrain_range_for_size_"}  # fmt: skip
