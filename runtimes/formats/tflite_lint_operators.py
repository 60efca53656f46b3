"""Structural lint of the operators of a .tflite subgraph: indices, order, options, ranks."""

from __future__ import annotations

from collections.abc import Iterator

from runtimes.formats.tflite_file import FileOperator, FileSubgraph, TfliteFile
from runtimes.formats.tflite_layers import is_constant, layer_names

__all__ = ["operator_problems"]

# What makes no value, or is allowed to make none.
WITHOUT_OUTPUT = ("CALL_ONCE", "ASSIGN_VARIABLE", "HASHTABLE_IMPORT", "WHILE", "IF", "CALL", "DELEGATE")
# Inputs that must be there, counted from the first; 1 for operators not named.
NEEDED_INPUTS = {
    **dict.fromkeys(
        ("FULLY_CONNECTED", "EMBEDDING_LOOKUP", "GATHER", "GATHER_ND", "BATCH_MATMUL", "ADD", "SUB", "MUL",
         "DIV", "MAXIMUM", "MINIMUM", "POW", "FLOOR_DIV", "FLOOR_MOD", "SQUARED_DIFFERENCE", "PRELU", "PAD",
         "MIRROR_PAD", "MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "REDUCE_ANY", "REDUCE_ALL",
         "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "TRANSPOSE", "TILE", "FILL", "EXPAND_DIMS", "ARG_MAX",
         "ARG_MIN", "TOPK_V2", "SPLIT", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL", "EQUAL", "NOT_EQUAL",
         "LOGICAL_AND", "LOGICAL_OR", "CUMSUM", "REVERSE_V2", "BROADCAST_TO", "ASSIGN_VARIABLE",
         "ATAN2", "BITWISE_XOR", "BROADCAST_ARGS", "CONV_3D", "MATRIX_SET_DIAG", "REVERSE_SEQUENCE", "RFFT2D",
         "RIGHT_SHIFT", "SEGMENT_SUM"), 2),
    **dict.fromkeys(
        ("TRANSPOSE_CONV", "PADV2", "SLICE", "SELECT", "SELECT_V2", "SPLIT_V",
         "BATCH_TO_SPACE_ND", "SPACE_TO_BATCH_ND", "SCATTER_ND", "RANGE", "DYNAMIC_UPDATE_SLICE",
         "HASHTABLE_FIND", "HASHTABLE_IMPORT", "UNSORTED_SEGMENT_MAX", "UNSORTED_SEGMENT_MIN", "UNSORTED_SEGMENT_PROD",
         "UNSORTED_SEGMENT_SUM"), 3),
    # Their bias is not optional: a depthwise convolution without one ends the process.
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), 3),
    **dict.fromkeys(("STRIDED_SLICE", "ONE_HOT", "SPARSE_TO_DENSE"), 4),
    **dict.fromkeys(("EMBEDDING_LOOKUP_SPARSE", "RNN", "NON_MAX_SUPPRESSION_V4"), 5),
    "NON_MAX_SUPPRESSION_V5": 6,
    "VAR_HANDLE": 0,
    "CALL_ONCE": 0,
    "HASHTABLE": 0,
    "CALL": 0,
    "WHILE": 0,
    "DELEGATE": 0,
}  # fmt: skip
# The type of options that an operator has; "!" where the runtime needs it, because zero strides or no branch are none.
OPTIONS = {
    "CONV_2D": "!Conv2DOptions", "DEPTHWISE_CONV_2D": "!DepthwiseConv2DOptions",
    "TRANSPOSE_CONV": "!TransposeConvOptions",
    "CONV_3D": "!Conv3DOptions", "AVERAGE_POOL_2D": "!Pool2DOptions", "MAX_POOL_2D": "!Pool2DOptions",
    "L2_POOL_2D": "!Pool2DOptions", "FULLY_CONNECTED": "!FullyConnectedOptions", "SOFTMAX": "!SoftmaxOptions",
    "CONCATENATION": "!ConcatenationOptions", "ADD": "!AddOptions", "MUL": "!MulOptions", "SUB": "!SubOptions",
    "DIV": "!DivOptions", "MEAN": "!ReducerOptions", "SUM": "!ReducerOptions", "REDUCE_MAX": "!ReducerOptions",
    "REDUCE_MIN": "!ReducerOptions", "REDUCE_PROD": "!ReducerOptions", "REDUCE_ANY": "!ReducerOptions",
    "REDUCE_ALL": "!ReducerOptions", "STRIDED_SLICE": "!StridedSliceOptions", "SPLIT": "!SplitOptions",
    "SPLIT_V": "!SplitVOptions", "PACK": "!PackOptions", "UNPACK": "!UnpackOptions", "ONE_HOT": "!OneHotOptions",
    "BATCH_MATMUL": "!BatchMatMulOptions", "RESIZE_BILINEAR": "!ResizeBilinearOptions",
    "RESIZE_NEAREST_NEIGHBOR": "!ResizeNearestNeighborOptions", "LEAKY_RELU": "!LeakyReluOptions",
    "DEPTH_TO_SPACE": "!DepthToSpaceOptions", "SPACE_TO_DEPTH": "!SpaceToDepthOptions", "CUMSUM": "!CumsumOptions",
    "MIRROR_PAD": "!MirrorPadOptions", "IF": "!IfOptions", "WHILE": "!WhileOptions", "CALL_ONCE": "!CallOnceOptions",
    "VAR_HANDLE": "!VarHandleOptions", "SVDF": "!SVDFOptions", "LSTM": "!LSTMOptions",
    "LOCAL_RESPONSE_NORMALIZATION": "!LocalResponseNormalizationOptions",
    "STABLEHLO_COMPOSITE": "!StableHLOCompositeOptions", "L2_NORMALIZATION": "L2NormOptions",
    "RESHAPE": "ReshapeOptions",
    "GATHER": "GatherOptions", "CAST": "CastOptions", "SQUEEZE": "SqueezeOptions", "TRANSPOSE": "TransposeOptions",
    "PAD": "PadOptions", "PADV2": "PadV2Options", "SLICE": "SliceOptions", "EXP": "ExpOptions", "NEG": "NegOptions",
    "ARG_MAX": "ArgMaxOptions", "ARG_MIN": "ArgMinOptions", "SHAPE": "ShapeOptions", "GELU": "GeluOptions",
    "MAXIMUM": "MaximumMinimumOptions", "MINIMUM": "MaximumMinimumOptions", "QUANTIZE": "QuantizeOptions",
    "DEQUANTIZE": "DequantizeOptions", "HARD_SWISH": "HardSwishOptions", "GATHER_ND": "GatherNdOptions",
}  # fmt: skip
POSITIVE = ("StrideH", "StrideW", "DilationHFactor", "DilationWFactor", "FilterHeight", "FilterWidth", "BlockSize")
SUBGRAPHS = ("ThenSubgraphIndex", "ElseSubgraphIndex", "CondSubgraphIndex", "BodySubgraphIndex", "InitSubgraphIndex",
             "DecompositionSubgraphIndex", "Subgraph")  # fmt: skip
# Ranks of the first inputs that the kernels index without looking.
RANKS = {
    "CONV_2D": (4, 4), "DEPTHWISE_CONV_2D": (4, 4), "CONV_3D": (5, 5), "AVERAGE_POOL_2D": (4,), "MAX_POOL_2D": (4,),
    "L2_POOL_2D": (4,), "DEPTH_TO_SPACE": (4,), "SPACE_TO_DEPTH": (4,), "RESIZE_BILINEAR": (4, 1),
    "RESIZE_NEAREST_NEIGHBOR": (4, 1), "TRANSPOSE_CONV": (1, 4, 4), "EMBEDDING_LOOKUP": (1,),
}  # fmt: skip


def operator_problems(model: TfliteFile, graph: FileSubgraph) -> Iterator[str]:
    """Problems of the operators of one subgraph, and of outputs that nothing makes."""
    count = len(graph.tensors)
    ready = {i for i, t in enumerate(graph.tensors) if is_constant(model, t) or t.is_variable or 0 in t.shape}
    ready |= set(graph.inputs)
    made: set[int] = set()
    for name, operator in zip(layer_names(graph), graph.operators, strict=True):
        problems = [*_index_problems(model, operator, count)]
        if not problems:
            problems += _order_problems(model, graph, operator, ready, made)
            problems += _option_problems(model, graph, operator)
            problems += _rank_problems(graph, operator)
        made |= set(operator.outputs)
        ready |= set(operator.outputs)
        yield from (f"layer {name} ({operator.op}): {problem}" for problem in problems)
    for index in graph.outputs:
        if 0 <= index < count and index not in ready:
            yield f"graph output: no operator makes tensor {index}"


def _index_problems(model: TfliteFile, operator: FileOperator, count: int) -> Iterator[str]:
    if not 0 <= operator.opcode < model.opcodes:
        yield f"operator code {operator.opcode} does not exist"
    elif operator.op.startswith("builtin "):
        yield f"{operator.op} is unknown to this schema"
    for index in operator.inputs:
        if not -1 <= index < count:
            yield f"input tensor {index} does not exist"
    for index in operator.intermediates:
        if not -1 <= index < count:
            yield f"intermediate tensor {index} does not exist"
    # LSTM-like kernels leave an output out with -1; the first must be there.
    for place, index in enumerate(operator.outputs):
        if not (-1 if place else 0) <= index < count:
            yield f"output tensor {index} does not exist"
    if not operator.outputs and operator.op not in WITHOUT_OUTPUT and not operator.op.startswith("CUSTOM"):
        yield "has no output"
    needed = 0 if operator.op.startswith(("CUSTOM", "STABLEHLO")) else NEEDED_INPUTS.get(operator.op, 1)
    present = next((place for place, index in enumerate(operator.inputs) if index < 0), len(operator.inputs))
    if present < needed:
        yield f"has {present} of the {needed} inputs it needs"


def _order_problems(
    model: TfliteFile, graph: FileSubgraph, operator: FileOperator, ready: set[int], made: set[int]
) -> Iterator[str]:
    for index in operator.inputs:
        if index >= 0 and index not in ready:
            yield f"reads tensor {index} ({graph.tensors[index].name}) before any operator makes it"
    for index in operator.outputs:
        if index < 0:
            continue
        if index in made:
            yield f"makes tensor {index}, which another operator has made"
        elif index in graph.inputs:
            yield f"writes to the graph's input, tensor {index}"
        elif is_constant(model, graph.tensors[index]):
            yield f"writes to constant tensor {index}"


def _option_problems(model: TfliteFile, graph: FileSubgraph, operator: FileOperator) -> Iterator[str]:
    wanted = OPTIONS.get(operator.op, "")
    if operator.options and wanted and operator.options != wanted.lstrip("!"):
        yield f"has {operator.options}: must be {wanted.lstrip('!')}"
        return
    if not operator.options:
        if wanted.startswith("!"):
            yield f"has no {wanted[1:]}"
        return
    read = operator.options_table
    for field in POSITIVE:
        value = read(field)
        if value is not None and value < 1:
            yield f"{field} = {value}: must be at least 1"
    for field in SUBGRAPHS:
        value = read(field)
        if value is not None and not 0 <= value < len(model.subgraphs):
            yield f"{field} = {value}: no such subgraph"
    if operator.op in ("SPLIT", "SPLIT_V") and read("NumSplits") != len(operator.outputs):
        yield f"NumSplits = {read('NumSplits')}: it has {len(operator.outputs)} outputs"
    if operator.op == "UNPACK" and read("Num") != len(operator.outputs):
        yield f"Num = {read('Num')}: it has {len(operator.outputs)} outputs"
    if operator.op == "PACK" and read("ValuesCount") != len(operator.inputs):
        yield f"ValuesCount = {read('ValuesCount')}: it has {len(operator.inputs)} inputs"
    axis = read("Axis")
    if axis is not None and operator.op in ("CONCATENATION", "GATHER", "UNPACK") and operator.inputs:
        rank = len(graph.tensors[operator.inputs[0]].shape)
        if rank and not -rank <= axis < rank:
            yield f"Axis = {axis}: the input has {rank} dimensions"


def _rank_problems(graph: FileSubgraph, operator: FileOperator) -> Iterator[str]:
    for place, (index, rank) in enumerate(zip(operator.inputs, RANKS.get(operator.op, ()), strict=False)):
        tensor = graph.tensors[index]
        # A file may leave the shapes of computed values out; an empty shape then stands for "to be computed".
        if len(tensor.shape) != rank and (tensor.shape or tensor.buffer):
            yield f"input {place} has {len(tensor.shape)} dimensions: must have {rank}"
