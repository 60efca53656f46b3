"""Exact graph rewrites before quantization: what the quantizer would miss, what would split the delegate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converters.executorch.program import LAYER, attribute, set_attribute

if TYPE_CHECKING:
    import torch

__all__ = ["rewrite"]


def rewrite(graph: torch.fx.GraphModule, *, fold: bool = True) -> int:
    """Fold batch norms, make dense products linears, PReLUs sums and whole-image poolings means; in place.

    Args:
        fold: False keeps batch norms as layers of their own.

    Returns:
        How many batch norms disappeared in other layers.
    """
    from converters.executorch.batch_norm import fold_batch_norms
    from converters.executorch.delegable import spell_out
    from converters.executorch.prelu import spell_out_prelus

    _dense_to_linear(graph)
    spell_out(graph)
    spell_out_prelus(graph)
    folded = fold_batch_norms(graph, into_layers=fold)
    _pool_whole_images(graph)
    graph.graph.eliminate_dead_code()
    graph.graph.lint()
    graph.recompile()
    return folded


def _rank(node: Any) -> int:
    value: Any = getattr(node, "meta", {}).get("val")
    return value.dim() if hasattr(value, "dim") else -1  # operators such as split give several tensors


def _pool_whole_images(graph: Any) -> None:
    """Global average poolings become one form, mean over the last two axes, which the delegate takes whole.

    x.mean((2, 3)) without kept axes is a portable operator and splits the delegate; an adaptive pooling of an image
    that comes from a channels-last input leaves a portable as_strided.
    """
    import torch

    aten = torch.ops.aten
    for node in list(graph.graph.nodes):
        found = _whole_image(node)
        if found is None:
            continue
        image, keep = found
        with graph.graph.inserting_before(node):
            pool = graph.graph.call_function(aten.mean.dim, (image, [-1, -2], True))
            result = pool if keep else graph.graph.call_function(aten.flatten.using_ints, (pool, 1))
        # The name stays, the module does not: PT2E looks for poolings by the module that a node came from.
        pool.meta["custom"] = node.meta.get("custom", {})
        if not keep:
            result.meta["custom"] = _renamed(node, "flatten")
        if "val" in node.meta:
            result.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(result)
        graph.graph.erase_node(node)


def _whole_image(node: Any) -> tuple[Any, bool] | None:
    """The NCHW image that a node averages over all pixels, and whether it keeps the axes; None for other nodes."""
    import torch

    aten = torch.ops.aten
    if node.op != "call_function" or node.kwargs or not node.args or _rank(node.args[0]) != 4:
        return None
    if node.target is aten.adaptive_avg_pool2d.default:
        return (node.args[0], True) if list(node.args[1]) == [1, 1] else None
    if node.target is not aten.mean.dim:
        return None
    image, axes = node.args[0], sorted(axis % 4 for axis in node.args[1])
    keep = bool(node.args[2]) if len(node.args) > 2 else False
    if axes == [1, 2] and not keep and image.target is aten.permute.default and list(image.args[1]) == [0, 2, 3, 1]:
        return image.args[0], False  # channels-last models turn their images round before the mean
    return (image, keep) if axes == [2, 3] else None


def _renamed(node: Any, suffix: str) -> dict[str, Any]:
    custom = node.meta.get("custom", {})
    return {**custom, LAYER: f"{custom.get(LAYER, node.name)}.{suffix}"}


def _dense_to_linear(graph: Any) -> None:
    """A product with a constant matrix becomes aten.linear: the quantizer annotates nothing else."""
    import torch

    aten = torch.ops.aten
    for node in list(graph.graph.nodes):
        if node.target is aten.addmm.default and not node.kwargs:
            bias, x, matrix = node.args[:3]
        elif node.target in (aten.mm.default, aten.matmul.default):
            (x, matrix), bias = node.args[:2], None
        else:
            continue
        found = _constant_matrix(matrix)
        if found is None or _rank(x) < 2 or (bias is not None and bias.op != "get_attr"):
            continue
        path, is_transposed = found
        value = attribute(graph, path)
        following = _bias_after(graph, node, value.shape[0 if is_transposed else 1]) if bias is None else None
        with graph.graph.inserting_before(following or node):
            if not is_transposed:
                path = set_attribute(graph, path, "transposed", value.t().contiguous())
            weight = graph.graph.get_attr(path)
            weight.meta["val"] = node.meta["val"].new_empty(tuple(attribute(graph, path).shape))
            if bias is None and following is not None:
                bias = next(arg for arg in following.args if arg is not node)
                # The constant may be defined further down than the product.
                copy = graph.graph.get_attr(bias.target)
                copy.meta = {**bias.meta}
                bias = copy
            linear = graph.graph.call_function(aten.linear.default, (x, weight) if bias is None else (x, weight, bias))
        linear.meta = {**(following or node).meta, "custom": node.meta.get("custom", {})}
        (following or node).replace_all_uses_with(linear)
        if following is not None:
            graph.graph.erase_node(following)
        graph.graph.erase_node(node)


def _constant_matrix(node: Any) -> tuple[str, bool] | None:
    """Path of the constant that a node stands for ([in, out]) or transposes ([out, in]), and whether it transposes."""
    import torch

    aten = torch.ops.aten
    transposed = False
    while getattr(node, "op", "") == "call_function":
        swaps = (
            node.target is aten.t.default
            or (node.target in (aten.transpose.int,) and {axis % 2 for axis in node.args[1:3]} == {0, 1})
            or (node.target is aten.permute.default and [axis % 2 for axis in node.args[1]] == [1, 0])
        )
        if not swaps:
            return None
        transposed, node = not transposed, node.args[0]
    if getattr(node, "op", "") != "get_attr" or _rank(node) != 2:
        return None
    return str(node.target), transposed


def _bias_after(graph: Any, node: Any, features: int) -> Any:
    """The addition of a constant vector that is the product's only use, if there is one."""
    import torch

    users = list(node.users)
    if len(users) != 1 or users[0].target is not torch.ops.aten.add.Tensor or users[0].kwargs:
        return None
    other = [arg for arg in users[0].args if arg is not node]
    if len(other) != 1 or getattr(other[0], "op", "") != "get_attr":
        return None
    return users[0] if tuple(attribute(graph, other[0].target).shape) == (features,) else None
