"""Whether TensorFlow Lite's GPU delegate takes a .tflite file, operator by operator, by TensorFlow Lite's own analysis.

It is the analysis of `tf.lite.experimental.Analyzer` with `gpu_compatibility=True`, whose native part ai-edge-litert
brings along too. In some builds (TensorFlow 2.21, ai-edge-litert 2.3) it passes every operator, so each time a file is
analysed that no GPU delegate takes as well: an analysis that passes this one is not believed, and the delegate's
published list of operators decides instead. Whether a phone's driver takes them, only the phone can tell.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edge_deploy.core.child import run_in_child
from edge_deploy.core.errors import Refusal, ToolchainError
from edge_deploy.core.require import require
from runtimes.formats.tflite_file import read_tflite
from runtimes.formats.tflite_layers import layer_names

__all__ = ["GpuCompatibility", "analyse_in_child", "gpu_compatibility", "read_analysis"]

TIMEOUT_S = 300.0
PROBE = "MATRIX_DIAG"
BY_NAME = (
    "the delegate's published list of operators, shapes and types not looked at: the analysis of TensorFlow Lite {} as "
    f"installed passes even {PROBE}, which no GPU delegate has"
)
# https://github.com/tensorflow/tensorflow/blob/master/tensorflow/lite/tools/versioning/gpu_compatibility.cc
_TAKEN = """
ABS ADD ADD_N ATAN2 AVERAGE_POOL_2D BATCH_MATMUL CAST CEIL CONCATENATION CONV_2D COS CUMSUM DENSIFY
DEPTH_TO_SPACE DEPTHWISE_CONV_2D DEQUANTIZE DIV DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP FLOOR
FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GELU GREATER GREATER_EQUAL HARD_SWISH LEAKY_RELU LESS LESS_EQUAL LOG
LOGICAL_AND LOGISTIC LSTM MAX_POOL_2D MAXIMUM MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL ONE_HOT PACK PAD PADV2
POW PRELU QUANTIZE REDUCE_MAX REDUCE_MIN REDUCE_PROD RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR
RESIZE_NEAREST_NEIGHBOR RSQRT SELECT SELECT_V2 SIGN SIN SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE
SQUARED_DIFFERENCE STABLEHLO_CLAMP STRIDED_SLICE SUB SUM TANH TILE TRANSPOSE TRANSPOSE_CONV
"""
GPU_OPERATORS = frozenset(_TAKEN.split())
_OPERATOR = re.compile(r"^\s*Op#(\d+) ")
_SUBGRAPH = re.compile(r"^Subgraph#(\d+)\b")
_WARNING = "GPU COMPATIBILITY WARNING: "
_VERDICT = re.compile(r"TFLite runtime version ([\w.+-]+?)\.?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuCompatibility:
    """What the analysis says.

    Attributes:
        refusals: Operators that the GPU delegate does not take, by layer; they would run on the CPU, and each change of
            place copies values.
        runtime: Version of TensorFlow Lite that the analysis speaks of.
        basis: What the refusals rest on.
    """

    refusals: tuple[Refusal, ...]
    runtime: str
    basis: str

    @property
    def is_compatible(self) -> bool:
        """Every operator may run on a GPU."""
        return not self.refusals


def gpu_compatibility(path: Path) -> GpuCompatibility:
    """Analyse a file in a child process, because the analysis trusts what it reads.

    Raises:
        BadInput: Not a .tflite file.
        MissingExtra: Neither ai-edge-litert nor TensorFlow is installed.
        ToolchainError: The analysis failed, ended its process, or says nothing that we understand.
    """
    model = read_tflite(path)
    texts: list[str] = run_in_child(
        "runtimes.gpu_compatibility:analyse_in_child",
        {"path": path.resolve()},
        stage=f"GPU compatibility analysis of {path.name}",
        timeout_s=TIMEOUT_S,
        environment={"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    probe = read_analysis(texts[0], [[(PROBE, PROBE)]])
    layers = [
        list(zip(layer_names(graph), (op.op for op in graph.operators), strict=True)) for graph in model.subgraphs
    ]
    found = read_analysis(texts[1], layers)
    if not probe.is_compatible:
        return found
    refused = tuple(
        Refusal(layer=name, op=op, reason="the GPU delegate has no such operator")
        for graph in layers
        for name, op in graph
        if op not in GPU_OPERATORS
    )
    return GpuCompatibility(refusals=refused, runtime=found.runtime, basis=BY_NAME.format(found.runtime))


def analyse_in_child(path: str) -> list[str]:
    """What the child does: the analysis of the probe and of the file as texts, without the lists of tensors."""
    analyzer = require("ai_edge_litert._pywrap_analyzer_wrapper", extra="run-tflite")
    with tempfile.TemporaryDirectory(prefix="edge-deploy-") as folder:
        probe = Path(folder, "probe.tflite")
        probe.write_bytes(_probe())
        texts = [analyzer.ModelAnalyzer(str(each), True, True) for each in (probe, path)]
    kept = (_OPERATOR, _SUBGRAPH, _VERDICT)
    return [
        "\n".join(
            line[:500] for line in text.splitlines() if _WARNING in line or any(each.search(line) for each in kept)
        )
        for text in texts
    ]


def _probe() -> bytes:
    """A file of one operator that no GPU delegate has."""
    flatbuffers = require("flatbuffers", extra="run-tflite")
    schema = require("ai_edge_litert.schema_py_generated", extra="run-tflite")
    model, graph, code, operator = schema.ModelT(), schema.SubGraphT(), schema.OperatorCodeT(), schema.OperatorT()
    tensors = []
    for name, shape in ((b"x", [1, 2]), (b"y", [1, 2, 2])):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, shape, schema.TensorType.FLOAT32, 0
        tensors.append(tensor)
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.MATRIX_DIAG
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0], [1]
    graph.name, graph.tensors, graph.operators, graph.inputs, graph.outputs = b"main", tensors, [operator], [0], [1]
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def read_analysis(text: str, layers: list[list[tuple[str, str]]]) -> GpuCompatibility:
    """The analyser's text as values.

    Args:
        layers: Name and operator of every layer, by subgraph.

    Raises:
        ToolchainError: It says neither that the model is compatible nor what is not.
    """
    refusals: list[Refusal] = []
    subgraph, operator, runtime = 0, 0, ""
    for line in text.splitlines():
        verdict = _VERDICT.search(line)
        if verdict:
            runtime = verdict[1]
        elif _WARNING in line:
            reason = line.partition(_WARNING)[2].strip().rstrip(".")
            name, op = layers[subgraph][operator]
            refusals.append(Refusal(layer=name, op=op, reason=reason))
        elif found := _SUBGRAPH.match(line):
            subgraph = int(found[1])
        elif found := _OPERATOR.match(line):
            operator = int(found[1])
    if not runtime:
        raise ToolchainError("GPU compatibility analysis: gave no verdict; another version of it may have other words.")
    basis = f"the analysis of TensorFlow Lite {runtime}: operators, shapes and types"
    return GpuCompatibility(refusals=tuple(refusals), runtime=runtime, basis=basis)
