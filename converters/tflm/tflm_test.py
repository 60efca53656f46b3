"""What TensorFlow Lite Micro refuses is named before flashing, and what is exported compiles and is the model."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from converters.c.kernels_test import OPS, ByHand, Net, schema
from converters.tflm.export import add_method, export_tflm
from converters.tflm.operators import refused_operators
from edge_deploy.core.errors import BadInput, Unsupported
from runtimes.micro.interpreter import inlined_bytes

pytest.importorskip("tflite_micro")

# Stands for the library's class, which the user has: the sources must call what it has and no more.
RESOLVER = """
#pragma once
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
namespace tflite {
template <unsigned int N> struct MicroMutableOpResolver {
  unsigned int count = 0;
  TfLiteStatus one() { return ++count <= N ? kTfLiteOk : kTfLiteError; }
  TfLiteStatus AddConv2D() { return one(); }
  TfLiteStatus AddDepthwiseConv2D() { return one(); }
  TfLiteStatus AddMaxPool2D() { return one(); }
  TfLiteStatus AddMean() { return one(); }
  TfLiteStatus AddFullyConnected() { return one(); }
  TfLiteStatus AddSoftmax() { return one(); }
};
}
"""
MAIN = """
#include <cstdio>
#include "model_data.h"
#include "model_resolver.h"
#include "model_settings.h"
int main() {
  tflite::MicroMutableOpResolver<the_model_operators> resolver;
  if (the_model_register(resolver) != kTfLiteOk || resolver.count != the_model_operators) return 1;
  fwrite(the_model_data, 1, the_model_data_size, stdout);
  return the_model_arena_bytes > 0 && the_model_input_0_scale > 0 ? 0 : 2;
}
"""


@pytest.fixture(scope="module")
def yardstick(data):
    return next((data / "models" / "yardstick_cnn_int8").glob("*.tflite"))


def with_int4_rows(folder):
    """One dense layer that is taken, and one with a scale for each row of its 4-bit weights, which is not."""
    net = Net(ByHand(), np.random.default_rng(0), {}, {})
    weights, scale = net.weights((6, 8), per_channel=False)
    hidden = net.inner(1, 6)
    net.op(
        OPS.FULLY_CONNECTED,
        [net.x(1, 8), weights, net.bias(6, scale)],
        [hidden],
        schema.FullyConnectedOptionsT(),
        version=5,
    )
    weights, scale = net.weights((4, 6), bits=4)
    net.op(
        OPS.FULLY_CONNECTED,
        [hidden, weights, net.bias(4, scale)],
        [net.y("y", 1, 4)],
        schema.FullyConnectedOptionsT(),
        version=8,
    )
    net.hand.signature("main", dict(net.inputs), dict(net.outputs))
    return net.hand.write(folder / "int4.tflite")


def test_a_model_that_it_runs_has_no_refusals(yardstick):
    assert refused_operators(yardstick) == ()


def test_every_refused_layer_is_named_with_its_types(data):
    path = data / "models" / "imagenet_coral_int8_tflite" / "mobilenet_v1_0.25_128_quant.tflite"
    refusals = refused_operators(path)
    assert {each.op for each in refusals} >= {"CONV_2D", "DEPTHWISE_CONV_2D"}
    assert len(refusals) > 20  # every layer of a uint8 model, not only the first
    assert "uint8 x uint8 x int32 to uint8" in refusals[0].reason
    with pytest.raises(Unsupported, match="refuses uint8"):
        export_tflm(path, path.parent / "never")
    assert not (path.parent / "never").exists()


def test_dense_layers_with_int4_rows_are_refused_and_the_others_not(tmp_path):
    path = with_int4_rows(tmp_path)
    (refused,) = refused_operators(path)
    assert (refused.op, "int4" in refused.reason) == ("FULLY_CONNECTED", True)


def test_the_exported_sources_compile_and_hold_the_model(yardstick, tmp_path):
    found = export_tflm(yardstick, tmp_path / "out", name="the model")
    assert {file.name for file in found.files} == {
        *("model_data.h", "model_data.cc", "model_resolver.h", "model_settings.h", "model.tflite")
    }
    assert found.arena.total_bytes > 0
    with pytest.raises(BadInput, match="exists already"):
        export_tflm(yardstick, tmp_path / "out")
    again = export_tflm(yardstick, tmp_path / "out", name="modèle", force=True)
    assert "mod_le_data[]" in (tmp_path / "out" / "model_data.h").read_text()
    assert again.files == found.files and not list(tmp_path.glob(".out*"))
    export_tflm(yardstick, tmp_path / "out", name="the model", force=True)
    model = inlined_bytes(yardstick)
    assert (tmp_path / "out" / "model.tflite").read_bytes() == model
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    library = tmp_path / "tensorflow" / "lite" / "micro"
    library.mkdir(parents=True)
    (library / "micro_mutable_op_resolver.h").write_text(RESOLVER)
    (tmp_path / "main.cc").write_text(MAIN)
    program = tmp_path / "main"
    sources = [str(tmp_path / "main.cc"), str(tmp_path / "out" / "model_data.cc")]
    flags = ["-std=c++17", "-Wall", "-Werror", f"-I{tmp_path}", f"-I{tmp_path / 'out'}"]
    subprocess.run(["g++", *flags, *sources, "-o", str(program)], check=True)
    assert subprocess.run([str(program)], capture_output=True, check=True).stdout == model


def test_methods_are_named_as_the_library_names_them():
    named = {
        "CONV_2D": "AddConv2D",
        "L2_POOL_2D": "AddL2Pool2D",
        "PADV2": "AddPadV2",
        "SPACE_TO_BATCH_ND": "AddSpaceToBatchNd",
        "RELU6": "AddRelu6",
        "CUSTOM TFLite_Detection_PostProcess": "AddDetectionPostprocess",
        "CUSTOM mine": None,
    }
    assert {op: add_method(op) for op in named} == named
    assert all(re.fullmatch(r"Add[A-Z]\w+", method) for method in named.values() if method)


def test_int4_weights_are_too_much_for_the_npus_compiler_and_it_says_so(tmp_path):
    pytest.importorskip("ethosu")
    from converters.ethos_u.vela import estimate_npu

    with pytest.raises(Unsupported, match=r"layer .*FULLY_CONNECTED.*int4 weights, of which vela"):
        estimate_npu(with_int4_rows(tmp_path), "ethos-u55-128")
