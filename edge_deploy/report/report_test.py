"""Six artifacts of one CNN and two of a recommender with hostile names: what the page shows, and that it is safe."""

import html.parser
import re

import numpy as np
import pytest

from edge_deploy.core.artifact import (
    Artifact,
    Comparison,
    FileEntry,
    LayerOutcome,
    PairedDifference,
    Signature,
    Verification,
)
from edge_deploy.core.benchmark import BenchmarkReport, Machine, RunConditions
from edge_deploy.core.device import Device
from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_errors import LayerError, LayerErrors, weight_histogram
from edge_deploy.core.layer_graph import Layer, LayerGraph
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.serde import write_json
from edge_deploy.core.tensor import TensorInfo
from edge_deploy.report import write_report
from edge_deploy.report.collect import collect

IMAGE = TensorInfo(name="image", shape=(1, 32, 32, 3), dtype="float32", layout="NHWC")
SCORES = TensorInfo(name="scores", shape=(1, 10), dtype="float32", meaning="logit")
CNN_LAYERS = [f"stage_{n}/conv_{i}" for n in (1, 2, 3) for i in (1, 2, 3)] + ["dense"]
# size kB, accuracy, SNR, latency us, of ResNet-8 as the notes saw it
CNN = {
    ("tflite", "float32"): (318.0, 0.855, 128.0, 258.0),
    ("tflite", "int8"): (96.0, 0.850, 27.5, 81.0),
    ("tflite", "int4"): (60.0, 0.815, 15.1, 205.0),
    ("executorch", "float32"): (327.0, 0.855, 122.0, 281.0),
    ("executorch", "int8"): (104.0, 0.855, 27.1, 92.0),
    ("executorch", "int4"): (66.0, 0.810, 14.8, 94.0),
}
HOSTILE = "</td><script>alert('x')</script><img src=http://evil.example/a onerror=alert(1)>\u202egnp\x00"


def outcome(layer, recipe, fmt, generator):
    count = 432 if layer.endswith("1") else 9216
    bits = {"float32": 32, "int8": 8, "int4": 4}[recipe]
    falls_back = recipe == "int4" and layer == "dense"
    bits = 8 if falls_back else bits
    asked, got = recipe, "int8 per-channel" if falls_back else f"{recipe}, one scale per channel"
    return LayerOutcome(
        layer=layer,
        op="FULLY_CONNECTED" if layer == "dense" else "CONV_2D",
        asked=asked,
        got=got,
        reason="640 weights: packing saves nothing; fallback int8 was permitted" if falls_back else "",
        weight_bits=float(bits),
        weight_bytes=count * bits // 8,
        runs_on="builtin" if recipe == "int4" and fmt == "tflite" else "XNNPACK",
    )


def cnn_artifact(fmt, recipe):
    kilobytes, accuracy, snr, _ = CNN[fmt, recipe]
    generator = np.random.default_rng(1)
    suffix = {"tflite": "tflite", "executorch": "pte"}[fmt]
    layers = []
    previous = "image"
    for name in CNN_LAYERS:
        out = TensorInfo(name=f"{name}:0", shape=(1, 32, 32, 16), dtype="float32")
        layers.append(
            Layer(name=name, op="CONV_2D", inputs=(previous,), outputs=(out,), weight_bytes=9, macs=1_250_000)
        )
        previous = out.name
    low = {"float32": 0.0, "int8": -0.025, "int4": -0.08}[recipe]
    return Artifact(
        name="resnet8",
        format=fmt,
        spec=spec_for_recipe(recipe, fallback_bits=8 if recipe == "int4" else None),
        source="resnet8.h5",
        kind="cnn",
        files=(FileEntry(path=f"model.{suffix}", role="model", bytes=int(kilobytes * 1000), sha256="3f" * 32),),
        source_inputs=(IMAGE,),
        source_outputs=(SCORES,),
        signatures=(Signature(name="main", inputs=(IMAGE,), outputs=(SCORES,)),),
        graph=LayerGraph(inputs=(IMAGE,), outputs=(previous,), layers=tuple(layers)),
        outcomes=tuple(outcome(name, recipe, fmt, generator) for name in CNN_LAYERS),
        toolchain={"ai-edge-litert": "2.3.0"} if fmt == "tflite" else {"executorch": "1.5.1", "torch": "2.13.0"},
        calibration_digest="" if recipe == "float32" else "ab" * 32,
        calibration_samples=0 if recipe == "float32" else 100,
        minimum_runtime="ai-edge-litert 1.4" if fmt == "tflite" else "executorch 1.5",
        warnings=("XNNPACK does not run INT4 convolutions: about 2.5x slower than INT8.",)
        if (fmt, recipe) == ("tflite", "int4")
        else (),
        verification=Verification(
            comparisons=tuple(
                Comparison(
                    kernels="XNNPACK",
                    threads=threads,
                    samples=200,
                    snr_db=snr + 0.1 * threads,
                    cosine=1 - 10 ** (-snr / 10) / 2,
                    max_error=0.1,
                    finite=True,
                    top1_agreement={"float32": 1.0, "int8": 0.965, "int4": 0.885}[recipe],
                )
                for threads in (1, 2)
            ),
            differences=(
                PairedDifference(
                    metric="accuracy",
                    samples=200,
                    source=0.855,
                    artifact=accuracy,
                    difference=accuracy - 0.855,
                    low=low + accuracy - 0.855 if low else 0.0,
                    high=accuracy - 0.855 + 0.015 if low else 0.0,
                ),
            ),
            verdict="not resolved" if recipe == "int4" else "passed",
            evaluation_digest="cd" * 32,
        ),
    )


def cnn_benchmark(fmt, recipe):
    kilobytes, _, _, latency = CNN[fmt, recipe]
    generator = np.random.default_rng(int(latency))
    rounds = 1e-6 * latency * (1 + np.abs(generator.normal(0, 0.04, (12, 40))))
    operators = [(f"Convolution (NHWC, QC8) IGEMM #{n}", 1e-6 * latency / 2**n) for n in range(1, 6)]
    return BenchmarkReport(
        artifact="resnet8",
        format=fmt,
        recipe=recipe,
        sha256="3f" * 32,
        model_bytes=int(kilobytes * 1000),
        device=Device(name="host", kind="host", isa="x86_64", cores=2, ram_bytes=25 * 10**9),
        machine=Machine(
            cpu_model="AMD EPYC",
            isa="x86_64",
            features=("avx2", "avx512_vnni"),
            cores=2,
            ram_bytes=25 * 10**9,
            governor=None,
            kernel="Linux 6.18",
        ),
        conditions=RunConditions(
            threads=1,
            kernels="ai-edge-litert 2.3.0 XNNPACK" if fmt == "tflite" else "executorch 1.5.1 XNNPACK",
            batch=1,
            signature="main",
            inputs="random, seed 0",
            input_sets=64,
        ),
        provenance="measured",
        group="group of the test",
        load_s=0.06 if fmt == "tflite" else 3.9,
        warm_up_s=(1e-3, 1e-4),
        rounds_s=tuple(tuple(float(v) for v in values) for values in rounds),
        base_rss_bytes=34_400_000,
        peak_rss_bytes=58_600_000 if fmt == "tflite" else 310_000_000,
        load_average_before=(0.98, 0.48, 0.27),
        load_average_after=(1.2, 0.5, 0.3),
        layer_s=dict(operators) if fmt == "tflite" else {},
        layer_source="profiler" if fmt == "tflite" else "none",
    )


def cnn_errors(recipe):
    generator = np.random.default_rng(3)
    bits = {"int8": 8, "int4": 4}[recipe]
    layers = []
    for number, name in enumerate(CNN_LAYERS):
        weights = generator.normal(0, 0.1 + 0.02 * number, 4000)
        step = np.abs(weights).max() / (2 ** (bits - 1) - 1)
        rounded = np.rint(weights / step) * step
        noise = 10 * np.log10((weights**2).sum() / ((weights - rounded) ** 2).sum())
        histogram = weight_histogram(weights, rounded)
        layers.append(LayerError(layer=name, snr_db=noise - number, weight_snr_db=noise, weights=histogram))
    return LayerErrors(layers=tuple(layers), method="each layer's output on 16 calibration samples")


def recommender_artifact(recipe):
    ids = TensorInfo(name="ids", shape=(1, 3), dtype="int32", id_bounds=(10, 20, 30))
    click = TensorInfo(name="click", shape=(1, 1), dtype="float32")
    return Artifact(
        name=f"dlrm {HOSTILE}",
        format="tflite",
        spec=spec_for_recipe(recipe, for_device="mcu"),
        source=HOSTILE,
        kind="recommender",
        files=(FileEntry(path="model.tflite", role="model", bytes=10, sha256="0" * 64),),
        source_inputs=(ids,),
        source_outputs=(click,),
        signatures=(Signature(name="main", inputs=(ids,), outputs=(click,)),),
        graph=LayerGraph(inputs=(ids,), outputs=(), layers=()),
        outcomes=(LayerOutcome(layer=HOSTILE, op=HOSTILE, asked=HOSTILE, got="int4", reason=HOSTILE),),
        toolchain={HOSTILE: HOSTILE},
        warnings=(HOSTILE,),
        verification=Verification(
            comparisons=(
                Comparison(
                    kernels=HOSTILE,
                    threads=1,
                    samples=5,
                    snr_db=999.0,
                    cosine=1.0,
                    max_error=0.0,
                    finite=recipe != "int4",
                ),
            )
        ),
    )


def write_example(folder):
    for fmt, recipe in CNN:
        home = folder / f"{fmt}-{recipe}"
        home.mkdir(parents=True)
        write_json(cnn_artifact(fmt, recipe), home / "manifest.json")
        write_json(cnn_benchmark(fmt, recipe), home / "benchmark.json")
        if recipe != "float32":
            write_json(cnn_errors(recipe), home / "layers.json")
    for recipe in ("int8", "int4"):
        home = folder / "dlrm" / f"tflite-{recipe}-mcu"
        home.mkdir(parents=True)
        write_json(recommender_artifact(recipe), home / "manifest.json")


class Outline(html.parser.HTMLParser):
    """Tags with their attributes, texts, and whether every element was closed in order."""

    def __init__(self):
        super().__init__()
        self.tags, self.texts, self.open, self.balanced = [], [], [], True

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        self.balanced = self.balanced and bool(self.open) and self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.texts.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_example(folder)
    return folder


@pytest.fixture(scope="module")
def written(folder):
    write_report(folder, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def outline(written):
    parsed = Outline()
    parsed.feed(written)
    return parsed


def test_the_page_is_one_well_formed_file_that_loads_and_runs_nothing(outline):
    assert outline.balanced
    assert outline.open == []
    names = {tag for tag, _ in outline.tags}
    assert not names & {"script", "img", "link", "iframe", "object", "embed", "base", "form"}
    for _, attributes in outline.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcset", "xlink:href")]
        assert attributes.get("href", "#").startswith("#")
    assert any("default-src 'none'" in attributes.get("content", "") for _, attributes in outline.tags)


def test_hostile_names_are_shown_as_text(outline, written):
    assert "evil.example" in "".join(outline.texts)
    assert "<script" not in written
    assert "\u202e" not in written
    assert "\x00" not in written


def test_every_artifact_stands_in_the_table_with_its_size_and_likeness(outline):
    text = " ".join(outline.texts)
    for fmt, recipe in CNN:
        assert f"{fmt} {recipe}" in text
    for expected in ("96.0 kB", "0.302", "27.6 dB", "96.5 %", "-0.5 (-3.0 to +1.0)", "81.5 %", "not resolved"):
        assert expected in text, expected


def test_latency_says_where_it_was_measured_and_compares_only_with_its_own_format(outline, folder):
    text = " ".join(outline.texts)
    assert "measured on this host (AMD EPYC), 1 thread" in text
    (cnn,) = (model for model in collect(folder) if model.name == "resnet8")
    bases = {entry.label: getattr(cnn.float_of(entry), "label", None) for entry in cnn.entries}
    assert bases["tflite int8"] == "tflite float32"
    assert bases["executorch int4"] == "executorch float32"
    assert bases["tflite float32"] is None


def test_measurements_of_different_runs_are_not_compared(folder, tmp_path):
    import dataclasses

    for recipe in ("float32", "int8"):
        home = tmp_path / recipe
        home.mkdir()
        write_json(cnn_artifact("tflite", recipe), home / "manifest.json")
        write_json(dataclasses.replace(cnn_benchmark("tflite", recipe), group=recipe), home / "benchmark.json")
    write_report(tmp_path, tmp_path / "r.html")
    assert "not measured together" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_layers_that_became_something_else_are_counted_and_marked(outline):
    text = " ".join(outline.texts)
    assert "1 of 10 layers with weights not as asked" in text
    assert "packing saves nothing" in text
    changed = [attributes for tag, attributes in outline.tags if tag == "tr" and attributes.get("class") == "changed"]
    assert len(changed) == 2 + 2  # the dense layer of two INT4 files, and the hostile layer twice


def test_outputs_that_are_not_finite_are_called_so(outline):
    assert "not finite" in " ".join(outline.texts)


def test_every_plot_has_a_point_for_each_artifact_inside_its_frame(written):
    plots = re.findall(
        r'<svg class="plot" viewBox="0 0 460 330" role="img" aria-label="resnet8.*?</svg>', written, flags=re.S
    )
    assert len(plots) == 2
    for plot in plots:
        markers = re.findall(r'class="marker p-\w+"', plot)
        assert len(markers) == 6
        for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', plot):
            assert 0 <= float(x) <= 460
            assert 0 <= float(y) <= 330
        assert "NaN" not in plot


def test_weights_are_drawn_for_each_counted_layer(written):
    assert len(re.findall(r'class="histogram"', written)) == 4 * len(CNN_LAYERS)


def test_warnings_stand_once_with_the_artifacts_they_hold_for(outline):
    text = "".join(outline.texts)
    assert text.count("XNNPACK does not run INT4") == 1
    assert "2.5x slower than INT8. (tflite int4)" in text


def test_the_same_folder_gives_the_same_page(folder, written, tmp_path):
    write_report(folder, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == written


def test_a_single_artifact_folder_and_one_without_extras_have_a_page_too(folder, tmp_path):
    home = folder / "tflite-int8"
    write_report(home, tmp_path / "one.html")
    bare = tmp_path / "bare" / "x"
    bare.mkdir(parents=True)
    (bare / "manifest.json").write_bytes((home / "manifest.json").read_bytes())
    write_report(tmp_path / "bare", tmp_path / "two.html")
    assert "Latency in detail" in (tmp_path / "one.html").read_text(encoding="utf-8")
    assert "Latency in detail" not in (tmp_path / "two.html").read_text(encoding="utf-8")


def test_empty_folders_and_damaged_files_are_refused_and_nothing_is_written(folder, tmp_path):
    with pytest.raises(BadInput, match="holds no artifact"):
        write_report(tmp_path, tmp_path / "r.html")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{")
    with pytest.raises(BadInput) as caught:
        write_report(tmp_path, tmp_path / "r.html")
    assert len(caught.value.problems) == 2
    assert not (tmp_path / "r.html").exists()
    with pytest.raises(BadInput, match="could not be written"):
        write_report(folder, tmp_path / "absent" / "r.html")
