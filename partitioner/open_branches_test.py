"""Single-tensor cuts of the nets of the adaptive-DNN study on today's Keras, explained from the layer lists.

The nets are built small (32x32, random weights): sizes do not change which layers there are.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.tensor import TensorInfo
from partitioner.open_branches import single_tensor_cuts

NETS = ("VGG16", "VGG19", "ResNet50", "ResNet50V2", "DenseNet121", "MobileNet")
# Keras builds the graphs; its NumPy backend is the lightest to import, so a child process reads them.
CHILD = """
import json, os, sys
os.environ["KERAS_BACKEND"] = "numpy"
import keras
from edge_deploy.core.serde import to_json
from edge_deploy.zoo.keras_graph import keras_graph
for name in sys.argv[1:]:
    model = getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3))
    print(json.dumps({"name": name, "graph": to_json(keras_graph(model))}))
"""


@pytest.fixture(scope="module")
def graphs():
    pytest.importorskip("keras")
    from edge_deploy.core.serde import from_json

    done = subprocess.run([sys.executable, "-c", CHILD, *NETS], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["name"]: from_json(LayerGraph, line["graph"]) for line in lines}


COUNTS = {"VGG16": 22, "VGG19": 25, "ResNet50V2": 16, "DenseNet121": 22, "ResNet50": 24, "MobileNet": 90}


@pytest.mark.parametrize("net", NETS)
def test_keras_nets_have_the_cuts_that_were_published_or_that_their_layers_explain(graphs, net):
    assert len(single_tensor_cuts(graphs[net])) == COUNTS[net]


def test_the_readme_gives_these_counts():
    text = (Path(__file__).parent / "README.md").read_text()
    rows = dict(re.findall(r"^\| (\w+) \| (\d+) \|", text, flags=re.MULTILINE))
    assert {net: int(rows[net]) for net in NETS} == COUNTS


def test_mobilenet_lost_two_layers_since_it_was_published(graphs):
    # Keras 2.2.5 had 93 layers in a row, so 92 cuts: conv1 padded by a layer of its own, and the pooled image brought
    # back to 1x1 by a reshape. Keras 3 pads inside conv1 and pools with keepdims.
    graph = graphs["MobileNet"]
    names = [layer.name for layer in graph.layers]
    assert len(names) + 1 == 91
    assert not {"conv1_pad", "reshape_1"} & set(names)
    assert {"conv_pad_2", "reshape_2"} <= set(names)
    pooled = next(layer for layer in graph.layers if layer.op == "GlobalAveragePooling2D")
    assert pooled.outputs[0].shape == (1, 1, 1, 1024)


def test_resnet50_has_24_positions_of_which_23_were_measured(graphs):
    # Before the first branch 6, after each of the 16 additions, after the last activation and the pooling. The authors'
    # repository holds edge models for these same 24; their result files stop at 23.
    after = [cut.edge_layers[-1] if cut.edge_layers else "" for cut in single_tensor_cuts(graphs["ResNet50"])]
    assert after[:6] == ["", "conv1_pad", "conv1_conv", "conv1_bn", "conv1_relu", "pool1_pad"]
    assert [name.endswith("_add") for name in after[6:22]] == [True] * 16
    assert after[22:] == ["conv5_block3_out", "avg_pool"]


def test_work_and_weights_are_those_of_the_published_net(graphs):
    assert graphs["MobileNet"].weight_bytes == 4 * 4_253_864
    conv = next(layer for layer in graphs["MobileNet"].layers if layer.name == "conv1")
    assert conv.macs == 16 * 16 * 32 * 3 * 3 * 3
    depthwise = next(layer for layer in graphs["MobileNet"].layers if layer.name == "conv_dw_1")
    assert depthwise.macs == 16 * 16 * 32 * 3 * 3


def test_behind_a_tensor_with_two_readers_a_branch_is_open():
    def tensor(name):
        return TensorInfo(name=name, shape=(1, 4), dtype="float32")

    def layer(name, *inputs):
        return Layer(name=name, op="op", inputs=inputs, outputs=(tensor(name),))

    layers = (layer("a", "x"), layer("fork", "a"), layer("b", "fork"), layer("add", "b", "fork"), layer("end", "add"))
    graph = LayerGraph(inputs=(tensor("x"),), outputs=("end",), layers=layers)
    assert [len(cut.edge_layers) for cut in single_tensor_cuts(graph)] == [0, 1, 4]
