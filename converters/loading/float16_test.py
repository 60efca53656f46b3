import numpy as np
import pytest

from converters.capture import capture, run_float
from converters.contracts import CaptureRequest
from converters.tflite.flatbuffer import add_opcode, add_tensor, constant, read_model, schema, set_constant, write_model
from edge_deploy.core.errors import Unsupported


@pytest.fixture(scope="module")
def float_file(tmp_path_factory):
    """A dense network as a stock converter writes it."""
    keras = pytest.importorskip("keras")
    folder = tmp_path_factory.mktemp("float")
    layers = [keras.layers.Input((6,), name="x"), keras.layers.Dense(4, activation="relu"), keras.layers.Dense(3)]
    keras.Sequential(layers).save(folder / "net.keras")
    return capture(CaptureRequest(source=str(folder / "net.keras")), folder / "captured").float_tflite


def test_a_file_with_float16_weights_is_taken_as_float32(float_file, tmp_path):
    model = read_model(float_file)
    graph = model.subgraphs[0]
    dequantize = add_opcode(model, "DEQUANTIZE", 3)
    for position, operator in enumerate(list(graph.operators)):
        index = int(operator.inputs[1])
        wide = graph.tensors[index]
        values = constant(model, wide)
        half = add_tensor(graph, f"half_{position}", values.shape, "float16")
        set_constant(model, graph.tensors[half], values, "float16")
        wide.buffer = 0
        step = schema().OperatorT()
        step.opcodeIndex, step.inputs, step.outputs = dequantize, [half], [index]
        graph.operators.insert(0, step)
    write_model(model, tmp_path / "half.tflite")
    captured = capture(CaptureRequest(source=str(tmp_path / "half.tflite")), tmp_path / "captured")
    assert "2 weights stored as float16" in captured.notes[0]
    feeds = np.random.default_rng(0).standard_normal((7, 6)).astype(np.float32)
    np.savez(tmp_path / "feeds.npz", x=feeds)
    run_float(captured, tmp_path / "feeds.npz", tmp_path / "answers.npz")
    whole = read_model(float_file)
    # The biases of an untrained network are zero.
    first, second = (
        constant(whole, whole.subgraphs[0].tensors[int(operator.inputs[1])]).astype(np.float16).astype(np.float32)
        for operator in whole.subgraphs[0].operators
    )
    wanted = np.maximum(feeds @ first.T, 0) @ second.T
    with np.load(tmp_path / "answers.npz") as answers:
        np.testing.assert_allclose(answers[answers.files[0]], wanted, atol=1e-5)


def test_a_quantized_file_is_refused_by_the_names_of_its_tensors(float_file, tmp_path):
    model = read_model(float_file)
    graph = model.subgraphs[0]
    tensor = graph.tensors[int(graph.operators[0].inputs[1])]
    tensor.type = schema().TensorType.INT8
    tensor.quantization = schema().QuantizationParametersT()
    tensor.quantization.scale, tensor.quantization.zeroPoint = [0.1], [0]
    set_constant(model, tensor, np.zeros(tensor.shape), "int8")
    write_model(model, tmp_path / "quantized.tflite")
    with pytest.raises(Unsupported, match="float model that it came from") as caught:
        capture(CaptureRequest(source=str(tmp_path / "quantized.tflite")), tmp_path / "captured")
    assert [refusal.op for refusal in caught.value.refusals] == ["INT8"]
