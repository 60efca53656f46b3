"""ExecuTorch for Cortex-M: an INT8 program whose operators are CMSIS-NN's, written and read back, never run here.

The kernels that such a file calls are built for a board with CMSIS-NN; ExecuTorch's Python package has none of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.contracts import Captured, Lowered
from edge_deploy.core.artifact import FileEntry, LayerFacts, LayerOutcome, Signature
from edge_deploy.core.child import run_in_child
from edge_deploy.core.digest import file_sha256
from edge_deploy.core.errors import MissingExtra, ToolchainError, Unsupported
from edge_deploy.core.serde import from_json
from edge_deploy.core.toolchain import versions

__all__ = ["CORES", "NOT_RUN", "lower_cortex_m", "lower_here"]

CORES = ("cortex-m0", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55", "cortex-m85")
MODEL = "model.pte"
NOT_RUN = "not run here: its kernels are CMSIS-NN's on a board"
# It asks for an older NumPy than everything else here and works with the newer one; hence not an extra.
INSTALL = "pip install --no-deps tosa-tools==2026.5.0, then pip install jsonschema semver"
NAMESPACE = "cortex_m::"
FREE = ("executorch_prim::", "dim_order_ops::")
_EXPECTED = (RuntimeError, ValueError, TypeError, KeyError, IndexError, AssertionError, AttributeError)


def lower_cortex_m(captured: Captured, core: str, calibration: Path, folder: Path) -> Lowered:
    """Write `model.pte` into `folder`, in a child process.

    Args:
        core: One of `CORES`; its instructions decide which scratch memory the kernels need.
        calibration: npz with one array per input, samples stacked on axis 0.

    Raises:
        Unsupported: Operators without a kernel for Cortex-M, or a model with tables.
        ToolchainError: ExecuTorch fails.
        MissingExtra: What its Cortex-M backend imports is not installed.
    """
    stage = f"lowering of {captured.name} to executorch int8 for {core}"
    arguments = {"captured": captured, "core": core, "calibration": calibration, "folder": folder}
    return from_json(Lowered, run_in_child("converters.cortex_m:lower_here", arguments, stage=stage), where=stage)


def lower_here(captured: Any, core: str, calibration: str, folder: str) -> Lowered:
    """The child's part of `lower_cortex_m`."""
    from converters.executorch.flow import flow_graph, read_flow
    from converters.executorch.layers import check_finite_weights, weighted_layers
    from converters.executorch.program import export, load_graph, tidy
    from converters.executorch.rewrites import rewrite
    from runtimes.formats.pte import read_facts

    model = from_json(Captured, captured, where="captured model")
    if len(model.batches) > 1 or model.recommender is not None:
        what = "a recommender's tables" if model.recommender is not None else f"{len(model.batches)} batch sizes"
        raise Unsupported(f"{model.name}: --delegate {core}: has no form for {what}; --to c has.")
    graph = load_graph(model)
    rewrite(graph)
    check_finite_weights(graph)
    tidy(graph)
    unlifted = export(graph, model.inputs, model.batches).module(check_guards=False)
    layers = weighted_layers(unlifted)
    inputs, outputs = (tuple(info.name for info in infos) for infos in (model.inputs, model.outputs))
    flow = flow_graph(read_flow(unlifted, inputs, outputs), model.inputs, model.outputs, {})
    path = Path(folder, MODEL)
    portable, planned = _write(graph, model, core, Path(calibration), path)
    stored = [fact for fact in read_facts(path) if fact.weight_count]
    outcomes = tuple(
        LayerOutcome(
            layer=layer.name,
            op=layer.op,
            asked="int8",
            **_stored(stored, _count(layer.shape)),
            runs_on=f"CMSIS-NN on {core}, {NOT_RUN}",
        )
        for layer in layers
    )
    notes = [NOT_RUN, f"planned memory {planned} bytes; the runtime's own and its method's on top"]
    if portable:
        notes.append(f"operators without a kernel of CMSIS-NN run in portable ones: {', '.join(portable)}")
    return Lowered(
        files=(FileEntry(path=MODEL, role="model", bytes=path.stat().st_size, sha256=file_sha256(path)),),
        signatures=(Signature(name="forward", inputs=model.inputs, outputs=model.outputs),),
        graph=flow,
        outcomes=outcomes,
        toolchain=versions("torch", "executorch", "tosa-tools"),
        minimum_runtime="executorch 1.0",
        warnings=tuple(notes),
    )


def _write(graph: Any, model: Captured, core: str, calibration: Path, path: Path) -> tuple[tuple[str, ...], int]:
    """Quantize, rewrite to the core's operators and write the file; the portable operators left, the planned bytes."""
    import contextlib
    import io

    import torch

    from converters.executorch.calibration import calibration_batches
    from runtimes.formats.pte import read_pte

    try:
        from executorch.backends.cortex_m.edge_compile_config import cortex_m_edge_compile_config
        from executorch.backends.cortex_m.passes.cortex_m_pass_manager import CortexMPassManager
        from executorch.backends.cortex_m.quantizer.quantizer import CortexMQuantizer
        from executorch.backends.cortex_m.target_config import CortexM, CortexMTargetConfig
    except ImportError as error:
        raise MissingExtra(f"--delegate {core}: {error}; {INSTALL}") from error
    from executorch.exir import EdgeProgramManager, ExecutorchBackendConfig, to_edge
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    target = CortexMTargetConfig(cpu=CortexM[core.removeprefix("cortex-").upper()])
    batches = calibration_batches(calibration, model.inputs, model.batches[0])

    def laid_out(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(v.to(memory_format=torch.channels_last) if v.dim() == 4 else v for v in values)

    try:
        with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            first = laid_out(next(iter(calibration_batches(calibration, model.inputs, model.batches[0], most=1))))
            exported = torch.export.export(graph.to(memory_format=torch.channels_last), first)
            prepared = prepare_pt2e(exported.module(check_guards=False), CortexMQuantizer())
            for values in batches:
                prepared(*laid_out(values))
            edge = to_edge(
                torch.export.export(convert_pt2e(prepared), first), compile_config=cortex_m_edge_compile_config()
            )
            rewritten = CortexMPassManager(edge.exported_program(), target_config=target).transform()
            made = EdgeProgramManager(rewritten, compile_config=cortex_m_edge_compile_config()).to_executorch(
                ExecutorchBackendConfig()
            )
    except _EXPECTED as error:
        raise ToolchainError(f"ExecuTorch lowering for {core}: {type(error).__name__}: {error}") from error
    with path.open("wb") as file:
        made.write_to_file(file)
    method = read_pte(path).main
    native = [name for name in method.operators if name.startswith(NAMESPACE)]
    if not native:
        raise Unsupported(f"--delegate {core}: CMSIS-NN has none of its operators ({', '.join(method.operators)}).")
    return tuple(n for n in method.operators if not n.startswith((NAMESPACE, *FREE))), method.planned_bytes


def _stored(facts: list[LayerFacts], count: int) -> dict[str, Any]:
    """What the file holds for weights of this many values; each of its weights is told of one layer only."""
    found = next((fact for fact in facts if fact.weight_count == count), None)
    if found is None:
        return {"got": "not found in the file", "reason": "no operator of the file has weights of this size"}
    facts.remove(found)
    return {"got": found.weight_dtype or "", "weight_bits": found.weight_bits, "weight_bytes": found.weight_bytes}


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
