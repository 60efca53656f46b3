"""Range equalisation on float TFLite graphs: exact in float, less error in INT8, nothing where it cannot be exact."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from converters.passes.equalise_tflite import equalise_model
from converters.passes.trial_tflite import _outputs
from converters.tflite.calibrate import activations, calibrate
from converters.tflite.emit import Emitter, Graph
from converters.tflite.flatbuffer import op_name, schema, write_model
from converters.tflite.quantizer import prepare, quantize_static
from converters.tflite.structure import twin_of, views
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.tensor import TensorInfo

SIZE, CHANNELS = 8, 12


@dataclass
class Net:
    """A float TFLite net under construction, images [1, 8, 8, 3] in."""

    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    emitter: Emitter = field(default_factory=lambda: Emitter("test"))

    def __post_init__(self) -> None:
        self.graph: Graph = self.emitter.graph("main")
        self.sizes: dict[int, np.ndarray] = {}
        self.image = self.graph.tensor("image", (1, SIZE, SIZE, 3))

    def layer(self, name, x, channels, act="RELU", *, kernel=1, spread=0.0, depthwise=False, padding="SAME"):
        """A convolution whose output channels differ in size by up to exp(spread), and count alike to its readers."""
        fb, given = schema(), self.graph.shape(x)[-1]
        shape = (1, kernel, kernel, given) if depthwise else (channels, kernel, kernel, given)
        weights = self.rng.normal(size=shape) / np.sqrt(kernel**2 * (1 if depthwise else given))
        sizes = np.exp(self.rng.uniform(-spread, 0, shape[3] if depthwise else channels))
        weights = weights / self.sizes.get(x, 1.0) * (sizes if depthwise else sizes[:, None, None, None])
        bias = 0.1 * self.rng.normal(size=len(sizes)) * sizes
        size = self.graph.shape(x)[1] - (kernel - 1 if padding == "VALID" else 0)
        made = self.graph.tensor(name, (1, size, size, len(sizes)))
        self.sizes[made] = sizes
        stored = [
            self.graph.values(f"{name}/{leaf}", v.astype(np.float32)) for leaf, v in (("w", weights), ("b", bias))
        ]
        options = {"padding": getattr(fb.Padding, padding), "strideH": 1, "strideW": 1}
        options |= {"dilationHFactor": 1, "dilationWFactor": 1}
        options |= {"fusedActivationFunction": getattr(fb.ActivationFunctionType, act)}
        kind, table = ("DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions") if depthwise else ("CONV_2D", "Conv2DOptions")
        if depthwise:
            options["depthMultiplier"] = 1
        self.graph.op(kind, [x, *stored], [made], table, **options)
        return made

    def dense(self, name, x, outputs):
        columns = int(np.prod(self.graph.shape(x)[1:]))
        sizes = np.resize(self.sizes[x], columns)
        weights = (self.rng.normal(size=(outputs, columns)) / np.sqrt(columns) / sizes).astype(np.float32)
        made = self.graph.tensor(name, (1, outputs))
        self.graph.op(
            "FULLY_CONNECTED", [x, self.graph.values(f"{name}/w", weights), -1], [made], "FullyConnectedOptions"
        )
        return made

    def op(self, kind, inputs, shape, name, options=None, **values):
        made = self.graph.tensor(name, shape)
        self.graph.op(kind, inputs, [made], options, **values)
        return made

    def write(self, path: Path, output: int) -> Path:
        self.graph.sign("serving_default", {"image": self.image}, {"y": output})
        self.emitter.write(path)
        return path


def depthwise_net(path, act="RELU6", spread=3.0):
    net = Net()
    x = net.layer("first", net.image, CHANNELS, act, kernel=3, spread=spread)
    x = net.layer("depth", x, CHANNELS, act, kernel=3, spread=spread, depthwise=True)
    x = net.layer("point", x, CHANNELS, act, spread=spread)
    return net.write(path, net.dense("scores", x, 5))


def branching_net(path):
    """Two readers of one tensor, a concatenation, a pooling, a residual sum."""
    fb, net = schema(), Net()
    x = net.layer("squeeze", net.image, 6, spread=3.0)
    left, right = net.layer("left", x, 4, spread=3.0), net.layer("right", x, 8, kernel=3, spread=3.0)
    joined = net.op("CONCATENATION", [left, right], (1, SIZE, SIZE, 12), "joined", "ConcatenationOptions", axis=3)
    pooled = net.op(
        "MAX_POOL_2D", [joined], (1, 4, 4, 12), "pooled", "Pool2DOptions",
        padding=fb.Padding.VALID, strideH=2, strideW=2, filterHeight=2, filterWidth=2,
    )  # fmt: skip
    inner = net.layer("inner", pooled, 12, "NONE", spread=3.0)
    total = net.op("ADD", [pooled, inner], (1, 4, 4, 12), "total", "AddOptions")
    return net.write(path, net.layer("last", total, 5, "NONE"))


def images(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, SIZE, SIZE, 3)).astype(np.float32)


INPUTS = (TensorInfo(name="image", shape=(1, SIZE, SIZE, 3), dtype="float32", layout="NHWC"),)


def equalised(file, target, samples, bits=8, **options):
    """The equalised file, and the factors."""
    model = prepare(file)
    named = target.with_suffix(".before")
    write_model(model, named)
    wanted = {node.layer: bits for view in views(model) for node in view.nodes}
    factors, _ = equalise_model(model, activations(named, {"image": samples}, INPUTS), wanted, **options)
    write_model(model, target)
    return target, factors


def outputs(file, samples):
    return next(iter(_outputs(file, {"image": samples}, INPUTS, INPUTS).values()))


def quantized(file, target, samples, recipe="int8", **options):
    spec = spec_for_recipe(recipe, **options)
    model = prepare(file)
    write_model(model, target.with_suffix(".named"))
    found = calibrate(target.with_suffix(".named"), {"image": samples}, INPUTS, spec)
    write_model(quantize_static(model, spec, found.ranges, means=found.means).model, target)
    return target


def error(want, got):
    return float(np.square(want - got).mean() / np.square(want).mean())


@pytest.mark.parametrize("build", [depthwise_net, branching_net, lambda p: depthwise_net(p, "RELU")])
def test_outputs_stay_and_ranges_of_channels_draw_level(build, tmp_path):
    file = build(tmp_path / "float.tflite")
    samples = images(48)
    after, factors = equalised(file, tmp_path / "equalised.tflite", samples)
    assert factors.groups >= 1
    assert factors.ratio[1] < factors.ratio[0] / 2
    np.testing.assert_allclose(outputs(after, samples), outputs(file, samples), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("act", ["RELU", "RELU6"])
def test_a_depthwise_net_loses_less_in_int8(act, tmp_path):
    file = depthwise_net(tmp_path / "float.tflite", act)
    samples, held = images(64), images(64, seed=1)
    after, _ = equalised(file, tmp_path / "equalised.tflite", samples)
    want = outputs(file, held)
    plain = error(want, outputs(quantized(file, tmp_path / "plain.tflite", samples), held))
    better = error(want, outputs(quantized(after, tmp_path / "better.tflite", samples), held))
    assert better < 0.7 * plain


def test_one_scale_for_a_whole_tensor_gains_most(tmp_path):
    file = depthwise_net(tmp_path / "float.tflite", "RELU")
    samples, held = images(64), images(64, seed=1)
    after, _ = equalised(file, tmp_path / "equalised.tflite", samples, weight_scale="tensor")
    want = outputs(file, held)
    files = [
        quantized(each, tmp_path / f"{number}.tflite", samples, weight_scale="tensor")
        for number, each in enumerate((file, after))
    ]
    plain, better = (error(want, outputs(each, held)) for each in files)
    assert better < 0.5 * plain


def test_a_channel_that_is_clipped_at_six_keeps_its_factor(tmp_path):
    net = Net()
    x = net.layer("first", net.image, CHANNELS, "RELU6", spread=5.0)
    file = net.write(tmp_path / "float.tflite", net.layer("last", x, 4, "NONE"))
    samples = 10 * images(48)
    after, factors = equalised(file, tmp_path / "equalised.tflite", samples)
    found = next(iter(factors.by_tensor.values()))
    made = next(node for view in views(prepare(file)) for node in view.nodes if node.layer == "first").outputs[0]
    runs = activations(file, {"image": samples}, INPUTS)
    tops = np.max([read(made).reshape(-1, CHANNELS).max(axis=0) for read in runs], axis=0)
    assert np.any(tops >= 6) and np.any(tops < 1)
    assert np.all(found[tops >= 6] == 1)
    assert np.all(found <= 1) and found.min() < 0.5
    np.testing.assert_allclose(outputs(after, samples), outputs(file, samples), rtol=1e-3, atol=1e-3)


def test_the_weights_that_make_channels_keep_their_norm(tmp_path):
    file = depthwise_net(tmp_path / "float.tflite", "RELU")
    after, factors = equalised(file, tmp_path / "equalised.tflite", images(48))
    assert factors.groups >= 1

    def norm(path):
        view = views(prepare(path))[0]
        node = next(node for node in view.nodes if op_name(view.model, node.operator) == "CONV_2D")
        return float(np.square(view.values(node.inputs[1])).sum())

    assert norm(after) == pytest.approx(norm(file), rel=1e-3)


def test_the_same_network_under_another_signature_is_scaled_alike(tmp_path):
    nets = [Net()]
    nets.append(Net(emitter=nets[0].emitter))
    for net, key in zip(nets, ("one", "other"), strict=True):
        x = net.layer("first", net.image, CHANNELS, spread=3.0)
        net.graph.sign(key, {"image": net.image}, {"y": net.layer("last", x, 4, "NONE")})
    file = tmp_path / "float.tflite"
    nets[0].emitter.write(file)
    model = prepare(file)
    assert twin_of(model, 1) == 0
    after, factors = equalised(file, tmp_path / "equalised.tflite", images(32))
    assert factors.groups == 1
    changed = views(prepare(after))
    assert twin_of(changed[0].model, 1) == 0
    before = views(model)[1]
    for node, old in zip(changed[1].nodes, before.nodes, strict=True):
        assert not np.array_equal(changed[1].values(node.inputs[1]), before.values(old.inputs[1]))
    np.testing.assert_allclose(outputs(after, images(4)), outputs(file, images(4)), rtol=1e-3, atol=1e-4)


def test_nothing_is_scaled_before_what_factors_do_not_pass(tmp_path):
    net = Net()
    x = net.layer("first", net.image, CHANNELS, "NONE", spread=4.0)
    x = net.op("LOGISTIC", [x], net.graph.shape(x), "gate")
    file = net.write(tmp_path / "float.tflite", net.layer("last", x, 4, "NONE"))
    _, factors = equalised(file, tmp_path / "equalised.tflite", images(16))
    assert factors.groups == 0 and not factors.by_tensor
