import numpy as np
import pytest

from converters.importers.tflite_graph import OPERATORS, import_module
from edge_deploy.core.errors import BadInput, Unsupported

torch = pytest.importorskip("torch")
tf = pytest.importorskip("tensorflow")
interpreter = pytest.importorskip("ai_edge_litert.interpreter")

RNG = np.random.default_rng(0)


def _weights(*shape):
    return tf.constant(RNG.normal(size=shape, scale=0.3).astype(np.float32))


IMAGE = (1, 8, 10, 4)
W33, W13, WD, WD2 = _weights(3, 3, 4, 6), _weights(1, 3, 4, 6), _weights(3, 3, 4, 1), _weights(3, 3, 4, 2)
W23, WG, WT, WS, WF = (
    _weights(2, 3, 4, 6),
    _weights(3, 3, 2, 6),
    _weights(3, 3, 5, 4),
    _weights(2, 2, 5, 4),
    _weights(320, 7),
)
C4, C1, MAP, BIAS = _weights(4), _weights(1), _weights(8, 10, 4), _weights(6)
TABLE, WSE, W83 = _weights(9, 5), _weights(1, 1, 4, 4), _weights(3, 3, 8, 5)
nn, relu = tf.nn, tf.nn.relu

# name: (function of float images or the given inputs, operators that must be in the file, input specifications)
CASES = {
    "convolution": (lambda x: nn.relu(nn.conv2d(x, W33, 1, "SAME") + BIAS), "CONV_2D", IMAGE),
    "convolution, odd border": (lambda x: nn.relu6(nn.conv2d(x, W33, 2, "SAME") + BIAS), "CONV_2D", IMAGE),
    "convolution, no border": (lambda x: nn.conv2d(x, W13, (2, 1), "VALID"), "CONV_2D", IMAGE),
    "convolution, even kernel": (lambda x: tf.tanh(nn.conv2d(x, W23, 1, "SAME")), "CONV_2D", IMAGE),
    "convolution, dilated": (lambda x: nn.conv2d(x, W33, 1, "SAME", dilations=2), "CONV_2D", IMAGE),
    "convolution, grouped": (lambda x: nn.conv2d(x, WG, 1, "SAME"), "CONV_2D", IMAGE),
    "depthwise": (lambda x: relu(nn.depthwise_conv2d(x, WD, (1, 1, 1, 1), "SAME")), "DEPTHWISE_CONV_2D", IMAGE),
    "depthwise, stride 2, multiplier 2": (
        lambda x: nn.depthwise_conv2d(x, WD2, (1, 2, 2, 1), "SAME"),
        "DEPTHWISE_CONV_2D",
        IMAGE,
    ),
    "transposed, same": (
        lambda x: nn.conv2d_transpose(x, WT, (1, 16, 20, 5), 2, "SAME"),
        "TRANSPOSE_CONV",
        IMAGE,
    ),
    "transposed, valid": (
        lambda x: nn.conv2d_transpose(x, WS, (1, 16, 20, 5), 2, "VALID"),
        "TRANSPOSE_CONV",
        IMAGE,
    ),
    "transposed, beyond what inputs reach": (
        lambda x: nn.conv2d_transpose(x, WT, (1, 18, 22, 5), 2, "VALID"),
        "TRANSPOSE_CONV",
        IMAGE,
    ),
    "fully connected": (lambda x: relu(tf.reshape(x, (1, 320)) @ WF), "FULLY_CONNECTED", IMAGE),
    "fully connected after an image": (
        lambda x: tf.reshape(relu(x + MAP), (1, -1)) @ WF,
        "FULLY_CONNECTED ADD",
        IMAGE,
    ),
    "fully connected on rows": (lambda x: tf.tensordot(x, C4[:, None], 1), "FULLY_CONNECTED", IMAGE),
    "arithmetic": (lambda x: (x + x * C4 - MAP) / (2.0 + x * x), "ADD SUB MUL DIV", IMAGE),
    "arithmetic on a held image": (
        lambda x: relu(nn.conv2d(x, W33, 1, "SAME")[..., :4] * C4 + MAP) - C1,
        "MUL CONV_2D STRIDED_SLICE",
        IMAGE,
    ),
    "squeeze and excite": (
        lambda x: x * tf.sigmoid(nn.conv2d(tf.reduce_mean(x, (1, 2), keepdims=True), WSE, 1, "SAME")),
        "MEAN LOGISTIC MUL",
        IMAGE,
    ),
    "average pool": (lambda x: nn.avg_pool2d(x, 3, 1, "SAME"), "AVERAGE_POOL_2D", IMAGE),
    "average pool, odd border": (lambda x: nn.avg_pool2d(x, 3, 2, "SAME"), "AVERAGE_POOL_2D", IMAGE),
    "average pool of all": (lambda x: nn.avg_pool2d(x, (8, 10), 1, "VALID"), "AVERAGE_POOL_2D", IMAGE),
    "max pool": (lambda x: nn.max_pool2d(x, 3, 1, "SAME"), "MAX_POOL_2D", IMAGE),
    "max pool, odd border": (lambda x: nn.max_pool2d(x, 3, 2, "SAME"), "MAX_POOL_2D", IMAGE),
    "max pool, odd border before": (lambda x: nn.max_pool2d(x - 5.0, 4, 1, "SAME"), "MAX_POOL_2D", IMAGE),
    "max pool of nonnegative": (lambda x: nn.max_pool2d(nn.relu(x), 4, 1, "SAME"), "MAX_POOL_2D RELU", IMAGE),
    "mean": (lambda x: tf.reduce_mean(nn.conv2d(x, W33, 1, "SAME"), (1, 2)), "MEAN", IMAGE),
    "mean of channels": (lambda x: tf.reduce_mean(x, -1, keepdims=True), "MEAN", IMAGE),
    "sums and extremes": (
        lambda x: tf.reduce_sum(x, (1, 3)) + tf.reduce_max(x, (1, 3)) * tf.reduce_min(x, (1, 3)),
        "SUM REDUCE_MAX REDUCE_MIN",
        IMAGE,
    ),
    "largest place": (lambda x: tf.argmax(x, -1, output_type=tf.int32), "ARG_MAX", IMAGE),
    "pad": (lambda x: tf.pad(nn.conv2d(x, W33, 1, "SAME"), ((0, 0), (1, 2), (0, 3), (0, 0))), "PAD", IMAGE),
    "pad channels": (lambda x: tf.pad(x, ((0, 0), (0, 0), (0, 0), (2, 1))), "PAD", IMAGE),
    "pad with a value": (lambda x: tf.pad(x, ((0, 0), (1, 0), (0, 1), (0, 0)), constant_values=3.0), "PADV2", IMAGE),
    "pad by reflection": (lambda x: tf.pad(x, ((0, 0), (1, 2), (2, 0), (0, 0)), "REFLECT"), "MIRROR_PAD", IMAGE),
    "pad by symmetry": (lambda x: tf.pad(x, ((0, 0), (1, 2), (2, 0), (0, 0)), "SYMMETRIC"), "MIRROR_PAD", IMAGE),
    "concatenation": (
        lambda x: tf.concat((nn.conv2d(x, W33, 1, "SAME"), x), -1),
        "CONCATENATION CONV_2D",
        IMAGE,
    ),
    "concatenation of rows": (lambda x: tf.concat((nn.relu(x), x), 1), "CONCATENATION", IMAGE),
    "softmax": (lambda x: nn.softmax(x), "SOFTMAX", IMAGE),
    "softmax of a held image": (lambda x: nn.softmax(nn.conv2d(x, W33, 1, "SAME")), "SOFTMAX", IMAGE),
    "log softmax": (lambda x: nn.log_softmax(tf.reshape(x, (8, 40))), "LOG_SOFTMAX", IMAGE),
    "leaky": (lambda x: nn.leaky_relu(x, 0.3), "LEAKY_RELU", IMAGE),
    "elu": (lambda x: nn.elu(x), "ELU", IMAGE),
    "gelu": (lambda x: nn.gelu(x, approximate=False), "GELU", IMAGE),
    "hard swish": (lambda x: x * nn.relu6(x + 3.0) * (1 / 6), "HARD_SWISH", IMAGE),
    "relu1": (lambda x: tf.minimum(tf.maximum(x, -1.0), 1.0), "RELU_N1_TO_1", IMAGE),
    "functions": (
        lambda x: (
            tf.exp(x) + tf.abs(x) - tf.sqrt(tf.abs(x)) + tf.square(x) + tf.math.log(1.5 + tf.abs(x)) - tf.floor(x)
        ),
        "EXP ABS SQRT LOG FLOOR",
        IMAGE,
    ),
    "transpose": (lambda x: tf.transpose(x, (0, 2, 1, 3)), "TRANSPOSE", IMAGE),
    "channels first and back": (
        lambda x: tf.transpose(nn.conv2d(tf.transpose(x, (0, 2, 3, 1)), W83, 1, "SAME"), (0, 3, 1, 2)),
        "TRANSPOSE CONV_2D",
        (1, 8, 6, 7),
    ),
    "strided slice": (lambda x: nn.relu(x)[:, 1::2, :-1, 1], "STRIDED_SLICE", IMAGE),
    "slice": (lambda x: tf.slice(nn.conv2d(x, W33, 1, "SAME"), (0, 1, 2, 3), (1, 4, 5, 2)), "SLICE", IMAGE),
    "split": (lambda x: tf.split(nn.conv2d(x, W33, 1, "SAME"), 2, -1)[1], "SPLIT", IMAGE),
    "split by sizes": (lambda x: tf.split(x, (1, 3), -1)[1], "SPLIT_V", IMAGE),
    "pack and unpack": (lambda x: tf.stack(tf.unstack(x, axis=1)[2:5], -1), "PACK UNPACK", IMAGE),
    "depth to space": (lambda x: nn.depth_to_space(tf.concat((x, x * 2.0), -1), 2), "DEPTH_TO_SPACE", IMAGE),
    "space to depth": (lambda x: nn.space_to_depth(x, 2), "SPACE_TO_DEPTH", IMAGE),
    "tile": (lambda x: tf.tile(x, (1, 2, 1, 3)), "TILE", IMAGE),
    "broadcast": (lambda x: tf.broadcast_to(x[:, :1], (1, 8, 10, 4)), "BROADCAST_TO", IMAGE),
    "choices of another shape": (lambda x: tf.where(x[..., :1] > 0, x, tf.reverse(C4, (0,))), "SELECT_V2", IMAGE),
    "nearest, whole": (lambda x: tf.image.resize(x, (16, 30), "nearest"), "RESIZE_NEAREST_NEIGHBOR", IMAGE),
    "nearest, broken": (lambda x: tf.image.resize(x, (5, 13), "nearest"), "RESIZE_NEAREST_NEIGHBOR", IMAGE),
    "nearest, from corners": (
        lambda x: tf.compat.v1.image.resize_nearest_neighbor(x, (5, 13), align_corners=True),
        "RESIZE_NEAREST_NEIGHBOR",
        IMAGE,
    ),
    "bilinear, half pixels": (lambda x: tf.image.resize(x, (5, 13)), "RESIZE_BILINEAR", IMAGE),
    "bilinear, legacy": (
        lambda x: tf.compat.v1.image.resize_bilinear(x, (5, 13)),
        "RESIZE_BILINEAR",
        IMAGE,
    ),
    "bilinear, corners": (
        lambda x: tf.compat.v1.image.resize_bilinear(x, (5, 13), align_corners=True),
        "RESIZE_BILINEAR",
        IMAGE,
    ),
    "look-up": (lambda i: tf.gather(TABLE, i), "GATHER", ((3,), tf.int32)),
    "look-up in two dimensions": (lambda i: tf.gather(TABLE, i), "GATHER", ((3, 2), tf.int32)),
    "gather columns": (lambda x: tf.gather(x, (2, 0, 3), axis=3), "GATHER", IMAGE),
    "batched product": (
        lambda x: tf.matmul(tf.reshape(x, (2, 40, 4)), tf.reshape(x, (2, 40, 4)), transpose_a=True),
        "BATCH_MATMUL",
        IMAGE,
    ),
    "choices": (
        lambda x: tf.where((x > 0) & (x < 1), x, tf.maximum(x * 0.5, -1.0)) + tf.cast(tf.equal(x, 0.0), tf.float32),
        "SELECT LESS GREATER LOGICAL_AND CAST",
        IMAGE,
    ),
    "shape of itself": (
        lambda x: tf.reshape(x, (tf.shape(x)[0], -1)) @ WF,
        "FULLY_CONNECTED",
        ((None, *IMAGE[1:]), tf.float32),
    ),
}


def _specification(given):
    shape, kind = given if isinstance(given[0], tuple) else (given, tf.float32)
    return tf.TensorSpec(shape, kind)


def _convert(function, *specifications):
    concrete = tf.function(function).get_concrete_function(*specifications)
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()


def _samples(details, count=2):
    for _ in range(count):
        feeds = []
        for detail in details:
            if detail["dtype"] == np.float32:
                feeds.append(RNG.normal(size=detail["shape"]).astype(np.float32))
            else:
                feeds.append(RNG.integers(0, 9, size=detail["shape"]).astype(detail["dtype"]))
        yield feeds


def _largest_difference(path):
    """Between LiteRT's outputs and the imported module's, on random inputs."""
    module = import_module(path)
    lite = interpreter.Interpreter(str(path), num_threads=1)
    lite.allocate_tensors()
    worst = 0.0
    for feeds in _samples(lite.get_input_details()):
        for detail, feed in zip(lite.get_input_details(), feeds, strict=True):
            lite.set_tensor(detail["index"], feed)
        lite.invoke()
        with torch.no_grad():
            found = module(*(torch.from_numpy(feed) for feed in feeds))
        found = found if isinstance(found, tuple) else (found,)
        for detail, ours in zip(lite.get_output_details(), found, strict=True):
            theirs = lite.get_tensor(detail["index"])
            assert theirs.shape == tuple(ours.shape) and theirs.dtype == ours.numpy().dtype
            worst = max(worst, float(np.abs(theirs.astype(np.float64) - ours.numpy()).max()))
    return worst


def _operators(path):
    from runtimes.formats.tflite_file import read_tflite

    return {operator.op for operator in read_tflite(path).subgraphs[0].operators}


@pytest.mark.parametrize("name", CASES)
def test_an_imported_operator_equals_litert(name, tmp_path):
    function, wanted, given = CASES[name]
    path = tmp_path / "case.tflite"
    path.write_bytes(_convert(function, _specification(given)))
    missing = set(wanted.split()) - _operators(path)
    assert not missing, f"the converter made {_operators(path)}"
    assert _largest_difference(path) <= 1e-5


def test_every_operator_of_the_list_is_known():
    wanted = """CONV_2D DEPTHWISE_CONV_2D FULLY_CONNECTED ADD SUB MUL DIV AVERAGE_POOL_2D MAX_POOL_2D MEAN SUM RESHAPE
    SQUEEZE PAD PADV2 MIRROR_PAD CONCATENATION SOFTMAX LOGISTIC TANH RELU RELU6 LEAKY_RELU PRELU HARD_SWISH TRANSPOSE
    STRIDED_SLICE SLICE GATHER EMBEDDING_LOOKUP BATCH_MATMUL PACK SHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR
    DEPTH_TO_SPACE"""
    assert not set(wanted.split()) - OPERATORS.keys()


def _mobile(inputs):
    """A net of the parts of MobileNetV1 and V2: strided depthwise blocks, expansions, residuals."""
    layers = tf.keras.layers
    x = layers.Conv2D(8, 3, 2, padding="same", use_bias=False)(inputs)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    for width, stride in ((8, 1), (8, 1), (12, 2)):
        skip = x
        x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(24, 1, use_bias=False)(x)))
        if stride == 2:
            x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
        x = layers.DepthwiseConv2D(3, stride, padding="valid" if stride == 2 else "same", use_bias=False)(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
        x = layers.BatchNormalization()(layers.Conv2D(width, 1, use_bias=False)(x))
        x = layers.Add()([skip, x]) if stride == 1 else x
    x = layers.PReLU(shared_axes=[1, 2])(x)
    x = layers.GlobalAveragePooling2D()(x)
    return layers.Dense(10, activation="softmax", name="head")(x)


@pytest.fixture(scope="module")
def mobile(tmp_path_factory):
    tf.keras.utils.set_random_seed(1)
    inputs = tf.keras.Input((32, 32, 3), name="pixels")
    model = tf.keras.Model(inputs, _mobile(inputs))
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization | tf.keras.layers.PReLU):
            layer.set_weights([RNG.uniform(0.2, 1.2, w.shape) for w in layer.get_weights()])
    path = tmp_path_factory.mktemp("mobile") / "mobile.tflite"
    path.write_bytes(_convert(lambda pixels: model(pixels), tf.TensorSpec((None, 32, 32, 3), tf.float32)))
    return path


def test_a_mobile_net_equals_litert(mobile):
    assert {"PRELU", "MEAN", "ADD", "DEPTHWISE_CONV_2D"} <= _operators(mobile)
    assert _largest_difference(mobile) <= 1e-5


def test_images_are_permuted_once_on_entry_only(mobile):
    program = torch.export.export(import_module(mobile), (torch.zeros(1, 32, 32, 3),))
    assert sum("permute" in str(node.target) for node in program.graph.nodes) == 1


def test_the_batch_is_the_callers(mobile):
    module = import_module(mobile)
    images = torch.from_numpy(RNG.normal(size=(5, 32, 32, 3)).astype(np.float32))
    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(module, (images,), dynamic_shapes=({0: batch},))
    one_by_one = torch.cat([module(image[None]) for image in images])
    torch.testing.assert_close(program.module()(images), one_by_one)


def test_layers_are_modules_that_quantizers_know_under_tflites_names(mobile):
    named = dict(import_module(mobile).named_modules())
    convolutions = {name for name, module in named.items() if isinstance(module, torch.nn.Conv2d)}
    linears = {name for name, module in named.items() if isinstance(module, torch.nn.Linear)}
    assert len(convolutions) == 10
    assert len(linears) == 1 and "head" in linears.pop()
    assert any("depthwise" in name for name in convolutions)


@pytest.mark.slow
def test_a_mobile_net_becomes_one_delegate_in_executorch(mobile):
    pytest.importorskip("executorch")
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    module = import_module(mobile)
    image = torch.from_numpy(RNG.normal(size=(1, 32, 32, 3)).astype(np.float32))
    program = torch.export.export(module, (image,))
    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    calls = [str(node.target) for node in edge.exported_program().graph.nodes if node.op == "call_function"]
    assert sum("executorch_call_delegate" in call for call in calls) == 1
    content = edge.to_executorch().buffer  # the runtime reads from it while it runs
    loaded = Runtime.get().load_program(content)
    method = loaded.load_method("forward")
    torch.testing.assert_close(method.execute([image])[0], module(image), atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def two_signatures(tmp_path_factory):
    class Both(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32), tf.TensorSpec((1, 2), tf.int32)])
        def first(self, zebra, ids):
            return {"sum": tf.reduce_sum(tf.gather(TABLE, ids), 1)[:, :4] + zebra, "zebra": zebra * 2.0}

        @tf.function(input_signature=[tf.TensorSpec((2, 4), tf.float32)])
        def second(self, x):
            return {"y": x * C4}

    folder = tmp_path_factory.mktemp("two")
    model = Both()
    tf.saved_model.save(model, folder / "saved", signatures={"first": model.first, "second": model.second})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "saved"), signature_keys=["first", "second"])
    path = folder / "two.tflite"
    path.write_bytes(converter.convert())
    return path


def test_inputs_and_outputs_keep_call_order_and_types(two_signatures):
    assert _largest_difference(two_signatures) <= 1e-5


def test_a_signature_is_chosen_by_its_key(two_signatures):
    x = torch.ones(2, 4)
    np.testing.assert_allclose(import_module(two_signatures, signature="second")(x)[0], C4, rtol=1e-6)
    with pytest.raises(BadInput, match="signature third: unknown; the file has first, second"):
        import_module(two_signatures, signature="third")


def test_a_file_of_litert_torch_with_embedding_look_ups_equals_litert(tmp_path):
    litert_torch = pytest.importorskip("litert_torch")

    class Recommender(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(9, 4)
            self.top = torch.nn.Linear(14, 1)

        def forward(self, dense, ids):
            rows = self.table(ids)
            dots = torch.bmm(rows, rows.transpose(1, 2)).flatten(1)
            return torch.sigmoid(self.top(torch.cat([dense, dots, rows[:, 0]], 1)))

    path = tmp_path / "recommender.tflite"
    litert_torch.convert(Recommender().eval(), (torch.zeros(1, 1), torch.zeros(1, 3, dtype=torch.int64))).export(path)
    assert "EMBEDDING_LOOKUP" in _operators(path)
    assert _largest_difference(path) <= 1e-5
    assert any(isinstance(module, torch.nn.Embedding) for module in import_module(path).modules())


def test_float16_weights_are_widened(tmp_path):
    concrete = tf.function(lambda x: nn.conv2d(x, W33, 1, "SAME")).get_concrete_function(tf.TensorSpec(IMAGE))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    converter.optimizations, converter.target_spec.supported_types = [tf.lite.Optimize.DEFAULT], [tf.float16]
    path = tmp_path / "half.tflite"
    path.write_bytes(converter.convert())
    assert "DEQUANTIZE" in _operators(path)
    assert _largest_difference(path) <= 1e-3  # XNNPACK may compute in half precision


def test_a_quantized_file_is_refused_by_layer(tmp_path):
    weights = tf.constant(RNG.normal(size=(320, 64)).astype(np.float32))
    concrete = tf.function(lambda x: x @ weights).get_concrete_function(tf.TensorSpec((1, 320)))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    path = tmp_path / "quantized.tflite"
    path.write_bytes(converter.convert())
    with pytest.raises(Unsupported, match=r"FULLY_CONNECTED\): is quantized") as caught:
        import_module(path)
    assert [refusal.op for refusal in caught.value.refusals] == ["FULLY_CONNECTED"]


def test_unknown_operators_are_all_named(tmp_path):
    path = tmp_path / "unknown.tflite"
    path.write_bytes(_convert(lambda x: (tf.cumsum(x, 1), tf.sort(x)), tf.TensorSpec((2, 3))))
    with pytest.raises(Unsupported, match=r"CUMSUM\): this operator cannot be imported") as caught:
        import_module(path)
    assert len(caught.value.refusals) == len({refusal.layer for refusal in caught.value.refusals}) >= 2


def test_damaged_files_end_in_an_error_of_ours(tmp_path, mobile):
    with pytest.raises(BadInput, match="no such file"):
        import_module(tmp_path / "missing.tflite")
    whole = mobile.read_bytes()
    generator = np.random.default_rng(3)
    path = tmp_path / "damaged.tflite"
    outcomes = set()
    for round_ in range(40):
        content = bytearray(whole)
        if round_ % 2:
            # the structure stands at the end of the file, behind the weights
            for place in generator.integers(len(content) - 8000, len(content), 4):
                content[place] = generator.integers(256)
        else:
            del content[generator.integers(len(content)) :]
        path.write_bytes(content)
        try:
            import_module(path)
            outcomes.add("imported")
        except (BadInput, Unsupported) as error:
            outcomes.add(type(error).__name__)
    assert "BadInput" in outcomes


@pytest.mark.needs_data
@pytest.mark.parametrize("file", ["mlperf_tiny_ic_resnet8/pretrainedResnet", "tinymaix_mnist/mnist_resnet_f"])
def test_published_float_files_equal_litert(data, file):
    assert _largest_difference(data / "models" / f"{file}.tflite") <= 1e-5


@pytest.mark.slow
@pytest.mark.needs_data
@pytest.mark.parametrize(
    "file", ["mlperf_tiny_ic_resnet8/pretrainedResnet", "esc10_miniresnet_keras/miniresnetv2_1stacks_64x50_tl"]
)
def test_published_keras_models_survive_the_way_through_tflite(data, tmp_path, file):
    from converters.contracts import CaptureRequest
    from converters.sources.keras import capture

    captured = capture(CaptureRequest(source=str(data / "models" / f"{file}.h5")), tmp_path)
    assert _largest_difference(captured.float_tflite) <= 1e-5


def test_inputs_and_outputs_come_in_the_order_of_the_source_where_it_is_told(tmp_path):
    """Converters sort inputs by name; two of one shape would be taken for each other."""
    import tensorflow as tf

    class Net(tf.Module):
        @tf.function(
            input_signature=[tf.TensorSpec((1, 3), tf.float32, name="z"), tf.TensorSpec((1, 3), tf.float32, name="a")]
        )
        def __call__(self, z, a):
            return {"later": z - a, "first": z * 2.0}

    net = Net()
    tf.saved_model.save(net, str(tmp_path / "net"), signatures=net.__call__)
    path = tmp_path / "net.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "net")).convert())
    z, a = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[5.0, 5.0, 5.0]])
    for names in (("z", "a"), ("a", "z")):
        module = import_module(path, inputs=names, outputs=("later", "first"))
        later, first = module(*(z if name == "z" else a for name in names))
        assert torch.equal(later, z - a) and torch.equal(first, z * 2)
