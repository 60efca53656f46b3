"""What the stock toolchains make of the same model and the same calibration: the peers we are measured against.

Every function runs in a child process (`edge_deploy.core.child.run_in_child`) and writes one model file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edge_deploy.core.errors import ToolchainError
from edge_deploy.core.require import require

__all__ = [
    "ai_edge_quantizer_dlrm",
    "ai_edge_quantizer_int8",
    "litert_torch_float",
    "pt2e_int8",
    "tensorflow_int8",
    "tensorflow_int8_of_graph",
]

REBUILT_TOLERANCE = 1e-4


def _samples(calibration: str) -> Iterator[dict[str, np.ndarray]]:
    with np.load(calibration, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    for index in range(len(next(iter(arrays.values())))):
        yield {name: array[index : index + 1] for name, array in arrays.items()}


def tensorflow_int8(model: str, calibration: str, out: str) -> None:
    """The TensorFlow converter's full-integer file of a Keras model, float inputs and outputs, batch 1."""
    from converters.loading.keras_model import load_keras

    tf = require("tensorflow", extra="export-tflite")
    loaded = load_keras(Path(model))
    samples = list(_samples(calibration))
    holder = tf.Module()  # the converter folds only variables that this object owns
    holder.owned = [getattr(variable, "_value", variable) for variable in loaded.model.variables]
    _tensorflow_int8(lambda *arrays: loaded.call(list(arrays)), samples, holder, out)


def tensorflow_int8_of_graph(float_tflite: str, calibration: str, out: str) -> None:
    """The same of a net that is no Keras model, rebuilt in TensorFlow from its float TFLite file.

    Raises:
        ToolchainError: What was rebuilt does not compute what the file computes.
    """
    from edge_deploy.bench.tf_graph import tf_function_of

    tf = require("tensorflow", extra="export-tflite")
    samples = list(_samples(calibration))
    function = tf_function_of(Path(float_tflite))
    image = next(iter(samples[0].values()))
    interpreter = require("ai_edge_litert.interpreter", extra="run-tflite").Interpreter(model_path=float_tflite)
    runner = interpreter.get_signature_runner()
    (want,) = runner(**{next(iter(runner.get_input_details())): image}).values()
    difference = float(np.abs(function(tf.constant(image)).numpy() - want).max())
    if not difference <= REBUILT_TOLERANCE * float(np.abs(want).max()):
        raise ToolchainError(f"{float_tflite}: rebuilt in TensorFlow it differs by {difference:.3g}.")
    _tensorflow_int8(function, samples, tf.Module(), out)


def _tensorflow_int8(call: Any, samples: list[dict[str, np.ndarray]], holder: Any, out: str) -> None:
    tf = require("tensorflow", extra="export-tflite")
    specs = [tf.TensorSpec((1, *array.shape[1:]), array.dtype, name=name) for name, array in samples[0].items()]
    function = tf.function(call).get_concrete_function(*specs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], holder)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([*sample.values()] for sample in samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    Path(out).write_bytes(converter.convert())


def ai_edge_quantizer_int8(float_tflite: str, calibration: str, out: str) -> None:
    """ai-edge-quantizer's static INT8 file with true minima and maxima (its default is a moving average)."""
    manager = require("ai_edge_quantizer.recipe_manager", extra="dev").RecipeManager()
    names = require("ai_edge_quantizer.qtyping", extra="dev").TFLOperationName
    manager.add_static_config(regex=".*", operation_name=names.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
    for border in (names.INPUT, names.OUTPUT):
        manager.add_quantization_config(regex=".*", operation_name=border, algorithm_key="no_quantize")
    _ai_edge_quantizer(float_tflite, manager, list(_samples(calibration)), out)


def ai_edge_quantizer_dlrm(program: str, folder: str, out: str) -> None:
    """ai-edge-quantizer's smallest sound DLRM of an exported program: INT4 tables, dynamic INT8 linears."""
    torch = require("torch", extra="export-tflite")
    litert_torch = require("litert_torch", extra="export-tflite")
    captured = torch.export.load(program)
    float_tflite = str(Path(folder) / "stock_float.tflite")
    litert_torch.convert(captured.module(), captured.example_inputs[0]).export(float_tflite)
    manager = require("ai_edge_quantizer.recipe_manager", extra="dev").RecipeManager()
    names = require("ai_edge_quantizer.qtyping", extra="dev").TFLOperationName
    manager.add_dynamic_config(regex=".*", operation_name=names.FULLY_CONNECTED, num_bits=8)
    manager.add_dynamic_config(regex=".*", operation_name=names.EMBEDDING_LOOKUP, num_bits=4)
    _ai_edge_quantizer(float_tflite, manager, None, out)


def planted_dlrm(rows: list[int], folder: str) -> None:
    """Write weights.pt and planted_dlrm.py of an untrained DLRM (13 dense, dim 16) whose logits spread like real ones.

    Clicks drawn from its own probabilities give every conversion of it an AUC to keep.
    """
    from edge_deploy.zoo import dlrm

    torch = require("torch", extra="run-executorch")
    config = dlrm.DlrmConfig(dense_features=13, table_rows=tuple(rows), bottom=(512, 256, 64), top=(512, 256))
    model = dlrm.build(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2 and weight.shape[0] in rows:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.25)
        dense = torch.randn(2000, 13, generator=generator)
        ids = torch.stack([torch.randint(0, size, (2000,), generator=generator) for size in rows], 1)
        probability = model(dense, ids).clamp(1e-6, 1 - 1e-6)
        logits = torch.log(probability / (1 - probability))
        last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
        gain = float(2.0 / logits.std())
        last.weight.mul_(gain)
        last.bias.copy_(last.bias * gain - float(logits.mean()) * gain - 1.0)
    torch.save(model.state_dict(), Path(folder) / "weights.pt")
    Path(folder, "planted_dlrm.py").write_text(
        "from edge_deploy.zoo import dlrm\n\n\ndef model():\n"
        f"    return dlrm.build(dlrm.DlrmConfig(dense_features=13, table_rows={tuple(rows)!r}, "
        "bottom=(512, 256, 64), top=(512, 256)))\n",
        encoding="utf-8",
    )


def _ai_edge_quantizer(float_tflite: str, manager: Any, samples: list[dict[str, np.ndarray]] | None, out: str) -> None:
    quantizer = require("ai_edge_quantizer.quantizer", extra="dev")
    statistics = None
    if samples is not None:
        calibrator = require("ai_edge_quantizer.calibrator", extra="dev")
        update = require("ai_edge_quantizer.utils.qsv_utils", extra="dev").min_max_update
        counter = calibrator.Calibrator(float_tflite, num_threads=1, qsv_update_func=update)
        interpreter = require("ai_edge_litert.interpreter", extra="run-tflite").Interpreter(model_path=float_tflite)
        key, signature = next(iter(interpreter.get_signature_list().items()))
        named = [dict(zip(signature["inputs"], sample.values(), strict=True)) for sample in samples]
        counter.calibrate({key: named}, manager)
        statistics = counter.get_model_qsvs()
    result = quantizer.Quantizer(float_tflite, manager.get_quantization_recipe()).quantize(statistics)
    result.export_model(out, overwrite=True)


def litert_torch_float(program: str, folder: str) -> str:
    """litert-torch's float file of an exported NCHW image model, with an NHWC input named as the program's."""
    torch = require("torch", extra="export-tflite")
    litert_torch = require("litert_torch", extra="export-tflite")
    module = torch.export.load(program).module()
    shape = torch.export.load(program).example_inputs[0][0].shape
    sample = torch.randn(shape[0], *shape[2:], shape[1])
    nhwc = litert_torch.to_channel_last_io(module, args=[0])
    path = str(Path(folder) / "float.tflite")
    litert_torch.convert(nhwc, (sample,)).export(path)
    return path


def pt2e_int8(program: str, calibration: str, out: str) -> None:
    """ExecuTorch's own route for an exported program: PT2E per-channel, XNNPACK."""
    torch = require("torch", extra="export-executorch")
    xnnpack = require("executorch.backends.xnnpack.quantizer.xnnpack_quantizer", extra="export-executorch")
    pt2e = require("torchao.quantization.pt2e.quantize_pt2e", extra="export-executorch")
    exir = require("executorch.exir", extra="export-executorch")
    partition = require("executorch.backends.xnnpack.partition.xnnpack_partitioner", extra="export-executorch")
    captured = torch.export.load(program)
    samples = [tuple(torch.from_numpy(array) for array in sample.values()) for sample in _samples(calibration)]
    config = xnnpack.get_symmetric_quantization_config(is_per_channel=True)
    prepared = pt2e.prepare_pt2e(captured.module(), xnnpack.XNNPACKQuantizer().set_global(config))
    with torch.no_grad():
        for sample in samples:
            prepared(*sample)
    exported = torch.export.export(pt2e.convert_pt2e(prepared), samples[0])
    lowered = exir.to_edge_transform_and_lower(
        exported,
        partitioner=[partition.XnnpackPartitioner()],
        compile_config=exir.EdgeCompileConfig(_check_ir_validity=False),
    )
    Path(out).write_bytes(lowered.to_executorch().buffer)
