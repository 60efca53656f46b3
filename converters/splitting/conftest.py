"""A small residual CNN and a small DLRM in both formats, each made once a session."""

import functools
from pathlib import Path

import numpy as np
import pytest

from converters.contracts import Captured, LowerRequest
from converters.recommender.model import Dense, Interaction, Lookup, Recommender, Table, save
from edge_deploy.core.artifact import MANIFEST, Artifact
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.serde import write_json
from edge_deploy.core.tensor import TensorInfo

SIZE = 8
CHANNELS = 6


def write_artifact(request: LowerRequest, target: str, lowered) -> Path:
    """The manifest that convert would leave."""
    captured = request.captured
    artifact = Artifact(
        name=captured.name,
        format=target,
        spec=request.spec,
        source="net",
        kind=captured.kind,
        files=lowered.files,
        source_inputs=captured.inputs,
        source_outputs=captured.outputs,
        signatures=lowered.signatures,
        graph=lowered.graph,
        outcomes=lowered.outcomes,
        toolchain=lowered.toolchain,
    )
    write_json(artifact, request.folder / MANIFEST)
    return request.folder


@pytest.fixture(scope="session")
def residual_tflite(tmp_path_factory) -> Path:
    """Convolutions, a residual addition, two branches that are joined, mean, dense, softmax; batches of 1 and 4."""
    pytest.importorskip("ai_edge_litert")
    from converters.tflite.calibrate import calibrate
    from converters.tflite.emit import Emitter
    from converters.tflite.flatbuffer import write_model
    from converters.tflite.quantizer import prepare, quantize_static
    from converters.tflite.signatures import describe

    folder = tmp_path_factory.mktemp("residual")
    emitter = Emitter("test")
    weights = {}
    for batch in (1, 4):
        graph = emitter.graph(f"batch_{batch}")
        x = graph.tensor("x", (batch, SIZE, SIZE, 3))
        graph.sign(f"batch_{batch}", {"image": x}, {"score": _residual(graph, x, batch, weights)})
    emitter.write(folder / "float.tflite")
    model = prepare(folder / "float.tflite")
    write_model(model, folder / "float.tflite")
    samples = np.random.default_rng(1).normal(size=(32, SIZE, SIZE, 3)).astype(np.float32)
    spec = spec_for_recipe("int8")
    sources = describe(model, (), ())[0].inputs
    found = calibrate(folder / "float.tflite", {"image": samples}, sources, spec)
    write_model(quantize_static(model, spec, found.ranges, means=found.means).model, folder / "int8.tflite")
    return folder / "int8.tflite"


def _residual(graph, x, batch, weights):
    def constant(name, *shape):
        if name not in weights:
            values = np.random.default_rng(len(weights)).normal(size=shape) / np.sqrt(np.prod(shape[1:]))
            weights[name] = graph.emitter.constant(name, values.astype(np.float32))
        return graph.use(weights[name])

    def conv(source, name, relu, stride=1):
        out = graph.tensor(name, (batch, SIZE // stride, SIZE // stride, CHANNELS))
        kernel = constant(f"{name}/kernel", CHANNELS, 3, 3, graph.shape(source)[3])
        graph.op(
            "CONV_2D",
            [source, kernel, constant(f"{name}/bias", CHANNELS)],
            [out],
            "Conv2DOptions",
            strideH=stride,
            strideW=stride,
            dilationHFactor=1,
            dilationWFactor=1,
            fusedActivationFunction=int(relu),
        )
        return out

    def op(kind, inputs, name, shape, options=None, **values):
        out = graph.tensor(name, shape)
        graph.op(kind, inputs, [out], options, **values)
        return out

    half = (batch, SIZE // 2, SIZE // 2, CHANNELS)
    first = conv(x, "first", True)
    added = op("ADD", [first, conv(first, "second", False)], "added", graph.shape(first), "AddOptions")
    pooled = op(
        "MAX_POOL_2D", [added], "pooled", half, "Pool2DOptions", filterHeight=2, filterWidth=2, strideH=2, strideW=2
    )
    joined = (*half[:3], 2 * CHANNELS)
    both = op(
        "CONCATENATION", [pooled, conv(added, "strided", True, 2)], "both", joined, "ConcatenationOptions", axis=3
    )
    axes = graph.values("axes", np.array([1, 2], np.int32))
    mean = op("MEAN", [both, axes], "mean", (batch, 2 * CHANNELS), "ReducerOptions", keepDims=False)
    weight, bias = constant("dense/kernel", 5, 2 * CHANNELS), constant("dense/bias", 5)
    dense = op("FULLY_CONNECTED", [mean, weight, bias], "dense", (batch, 5), "FullyConnectedOptions")
    return op("SOFTMAX", [dense], "softmax", (batch, 5), "SoftmaxOptions", beta=1.0)


@pytest.fixture(scope="session")
def dlrm(tmp_path_factory):
    """An artifact folder of a DLRM by target, recipe and device."""

    @functools.cache
    def make(target: str, recipe: str, device: str = "phone", batches: tuple[int, ...] = (1,)) -> Path:
        from converters.lower import lower

        folder = tmp_path_factory.mktemp("dlrm")
        # Every cut of a program is two lowerings: one layer less on either side of the interaction.
        model, arrays = _dlrm(batches, deep=target == "tflite")
        save(model, arrays, folder / "recommender")
        rng = np.random.default_rng(3)
        np.savez(
            folder / "calibration.npz",
            dense=rng.normal(size=(64, 5)).astype(np.float32),
            ids=rng.integers(0, 7, size=(64, 3)),
        )
        captured = Captured(
            name="dlrm",
            framework="torch",
            kind="recommender",
            folder=folder,
            inputs=model.inputs,
            outputs=(model.output,),
            batches=batches,
            recommender=folder / "recommender",
        )
        (folder / "out").mkdir()
        spec = spec_for_recipe(recipe, for_device=device, fallback_bits=8)
        calibration = folder / "calibration.npz" if device == "mcu" else None
        request = LowerRequest(captured=captured, spec=spec, folder=folder / "out", calibration=calibration)
        return write_artifact(request, target, lower(target, request))

    return make


def _dlrm(batches, *, deep):
    rng = np.random.default_rng(1)
    arrays, size = {}, batches[0] if len(batches) == 1 else -1
    rows, dim = (200, 7, 20), 8

    def dense(name, inputs, outputs, activation):
        arrays[f"{name} weight"] = (rng.normal(size=(outputs, inputs)) / np.sqrt(inputs)).astype(np.float32)
        arrays[f"{name} bias"] = rng.normal(size=outputs).astype(np.float32) * 0.1
        return Dense(
            name=name,
            weight=f"{name} weight",
            bias=f"{name} bias",
            in_features=inputs,
            out_features=outputs,
            activation=activation,
        )

    for place, count in enumerate(rows):
        arrays[f"table.{place}"] = rng.normal(size=(count, dim)).astype(np.float32)
    pairs = tuple((a, b) for a in range(4) for b in range(a))
    model = Recommender(
        inputs=(
            TensorInfo(name="dense", shape=(size, 5), dtype="float32"),
            TensorInfo(name="ids", shape=(size, 3), dtype="int64", id_bounds=rows),
        ),
        output=TensorInfo(name="score", shape=(size, 1), dtype="float32", meaning="probability"),
        tables=tuple(
            Table(name=f"table.{place}", rows=count, dim=dim, weight=f"table.{place}")
            for place, count in enumerate(rows)
        ),
        lookups=tuple(Lookup(table=place, input="ids", column=place) for place in range(3)),
        interaction=Interaction(kind="dot", top_inputs=("bottom", "pairs"), vectors=(-1, 0, 1, 2), pairs=pairs),
        bottom=(dense("bottom.0", 5, 16, "relu"), dense("bottom.1", 16, dim, "relu"))
        if deep
        else (dense("bottom.0", 5, dim, "relu"),),
        top=(dense("top.0", dim + len(pairs), 16, "relu"), dense("top.1", 16, 1, "none"))
        if deep
        else (dense("top.0", dim + len(pairs), 1, "none"),),
        dense_input="dense",
        output_activation="sigmoid",
    )
    return model, arrays


@pytest.fixture(scope="session")
def residual_executorch(tmp_path_factory):
    """An artifact folder of a small residual CNN by recipe."""

    @functools.cache
    def make(recipe: str) -> Path:
        torch = pytest.importorskip("torch")
        pytest.importorskip("executorch")
        from converters.lower import lower

        class Residual(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.first = torch.nn.Conv2d(3, CHANNELS, 3, padding=1)
                self.second = torch.nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
                self.head = torch.nn.Linear(CHANNELS, 4)

            def forward(self, x):
                x = torch.relu(self.first(x))
                x = torch.relu(x + self.second(x))
                return self.head(torch.nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))

        folder = tmp_path_factory.mktemp("residual")
        torch.manual_seed(0)
        module = Residual().eval()
        torch.export.save(torch.export.export(module, (torch.randn(1, 3, SIZE, SIZE),)), folder / "program.pt2")
        samples = np.random.default_rng(1).normal(size=(16, 3, SIZE, SIZE)).astype(np.float32)
        np.savez(folder / "calibration.npz", image=samples)
        captured = Captured(
            name="residual",
            framework="torch",
            kind="cnn",
            folder=folder,
            inputs=(TensorInfo(name="image", shape=(1, 3, SIZE, SIZE), dtype="float32"),),
            outputs=(TensorInfo(name="score", shape=(1, 4), dtype="float32"),),
            program=folder / "program.pt2",
        )
        (folder / "out").mkdir()
        request = LowerRequest(
            captured=captured,
            spec=spec_for_recipe(recipe, fallback_bits=8),
            folder=folder / "out",
            calibration=folder / "calibration.npz",
        )
        return write_artifact(request, "executorch", lower("executorch", request))

    return make
