"""ExecuTorch for Vulkan: a float program becomes a `.pte` whose operators are delegated to a phone's GPU.

No Vulkan runtime is part of ExecuTorch's Python package, so that the file is written and read back, never run here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.contracts import Captured, Lowered
from edge_deploy.core.artifact import FileEntry, LayerOutcome, Signature
from edge_deploy.core.child import run_in_child
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.errors import ToolchainError, Unsupported
from edge_deploy.core.serde import from_json
from edge_deploy.core.toolchain import versions

__all__ = ["BACKEND", "NOT_RUN", "lower_here", "lower_vulkan"]

BACKEND = "VulkanBackend"
MODEL = "model.pte"
NOT_RUN = "not run here: this machine has no Vulkan runtime of ExecuTorch"
_EXPECTED = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AssertionError, AttributeError)


def lower_vulkan(captured: Captured, recipe: str, folder: Path) -> Lowered:
    """Write `model.pte` into `folder`, in a child process.

    Args:
        recipe: "float32", or "float16" for arithmetic in half precision.

    Raises:
        Unsupported: Vulkan takes no operator of it.
        ToolchainError: ExecuTorch fails.
    """
    stage = f"lowering of {captured.name} to executorch {recipe} for Vulkan"
    arguments = {"captured": captured, "recipe": recipe, "folder": folder}
    return from_json(Lowered, run_in_child("converters.vulkan:lower_here", arguments, stage=stage), where=stage)


def lower_here(captured: Any, recipe: str, folder: str) -> Lowered:
    """The child's part of `lower_vulkan`."""
    from converters.executorch.flow import flow_graph, read_flow
    from converters.executorch.layers import check_finite_weights, weighted_layers
    from converters.executorch.program import export, load_graph, tidy
    from converters.executorch.rewrites import rewrite

    model = from_json(Captured, captured, where="captured model")
    if len(model.batches) > 1:
        raise Unsupported(f"{model.name}: --delegate vulkan: one batch size at a time, not {model.batches}.")
    graph = load_graph(model)
    rewrite(graph)
    check_finite_weights(graph)
    tidy(graph)
    program = export(graph, model.inputs, model.batches)
    unlifted = program.module(check_guards=False)
    layers = weighted_layers(unlifted)
    inputs, outputs = (tuple(info.name for info in infos) for infos in (model.inputs, model.outputs))
    flow = flow_graph(read_flow(unlifted, inputs, outputs), model.inputs, model.outputs, {})
    path = Path(folder, MODEL)
    left = _write(program, path, half=recipe == "float16")
    bits = 16 if recipe == "float16" else 32
    outcomes = tuple(
        LayerOutcome(
            layer=layer.name,
            op=layer.op,
            asked=recipe,
            got=recipe,
            weight_bits=float(bits),
            weight_bytes=bits // 8 * _count(layer.shape),
            runs_on=f"portable, {NOT_RUN}" if _is_left(layer.op, left) else f"Vulkan, {NOT_RUN}",
        )
        for layer in layers
    )
    shown = ", ".join(dict.fromkeys(left))
    on_cpu = (f"Vulkan does not take {shown}: portable kernels run them on the CPU, values are copied there and back",)
    return Lowered(
        files=(FileEntry(path=MODEL, role="model", bytes=path.stat().st_size, sha256=file_sha256(path)),),
        signatures=(Signature(name="forward", inputs=model.inputs, outputs=model.outputs),),
        graph=flow,
        outcomes=outcomes,
        toolchain=versions("torch", "executorch"),
        minimum_runtime="executorch 1.0",
        warnings=(NOT_RUN, *(on_cpu if left else ())),
    )


def _write(program: Any, path: Path, *, half: bool) -> tuple[str, ...]:
    """Write the file; the operators that stay on the CPU."""
    import contextlib
    import io

    from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    from runtimes.formats.pte import read_pte

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the partitioner prints what it found
            edge = to_edge_transform_and_lower(
                program,
                partitioner=[VulkanPartitioner({"force_fp16": True} if half else {})],
                compile_config=EdgeCompileConfig(_check_ir_validity=False),
            )
            made = edge.to_executorch()
    except _EXPECTED as error:
        raise ToolchainError(f"ExecuTorch lowering for Vulkan: {type(error).__name__}: {error}") from error
    with path.open("wb") as file:
        made.write_to_file(file)
    method = read_pte(path).main
    if not any(name == BACKEND for name, _ in method.delegates):
        raise Unsupported(f"--delegate vulkan: Vulkan takes none of its operators ({', '.join(method.operators)}).")
    return tuple(method.operators)


def _is_left(op: str, left: tuple[str, ...]) -> bool:
    kind = op.rpartition(".")[2]
    return any(each.partition("::")[2].partition(".")[0] in (kind, f"{kind}_copy") for each in left)


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
