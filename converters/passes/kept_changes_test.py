"""With what is kept of the passes, the graph that was quantized can be made again from the source's."""

import numpy as np

from converters.contracts import Captured, LowerRequest
from converters.passes.equalise_tflite_test import INPUTS, Net, depthwise_net, images
from converters.passes.float_tflite import change_float_graph
from converters.passes.fold_tflite_test import behind
from converters.passes.kept_changes import CHANGES, changes_entry, is_folded, read_changes, restore_tflite
from converters.tflite.quantizer import prepare
from converters.tflite.structure import views
from edge_deploy.core.passes import EQUALISE, FOLD
from edge_deploy.core.quant_spec import spec_for_recipe


def changed(file, folder, passes=(FOLD, EQUALISE)):
    """The model after its passes, and the records of them."""
    folder.mkdir()
    np.savez(folder.with_suffix(".npz"), image=images(32))
    captured = Captured(
        name="net", framework="keras", kind="cnn", folder=folder, inputs=INPUTS, outputs=(), float_tflite=file
    )
    spec = spec_for_recipe("int8", passes=passes)
    request = LowerRequest(captured=captured, spec=spec, folder=folder, calibration=folder.with_suffix(".npz"))
    model = prepare(file)
    return model, change_float_graph(model, request, INPUTS)


def constants(model):
    (view,) = views(model)
    found = [view.values(i) for node in view.nodes for i in node.inputs if view.is_constant(i) and view.is_float(i)]
    return [node.kind for node in view.nodes], found


def test_a_folded_and_equalised_graph_is_made_again_from_its_source(tmp_path):
    for number, build in enumerate((depthwise_net, lambda path: (net := Net()).write(path, behind(net)))):
        file = build(tmp_path / f"{number}.tflite")
        model, records = changed(file, tmp_path / f"artifact-{number}")
        assert any(record.applied for record in records)
        again = prepare(file)
        restore_tflite(again, tmp_path / f"artifact-{number}")
        for want, got in zip(constants(model), constants(again), strict=True):
            assert len(want) == len(got)
            assert all(np.array_equal(a, b) for a, b in zip(want, got, strict=True))


def test_the_file_stands_in_the_manifest_only_where_something_changed(tmp_path):
    file = depthwise_net(tmp_path / "float.tflite")
    changed(file, tmp_path / "with")
    (entry,) = changes_entry(tmp_path / "with")
    assert (entry.path, entry.role) == (CHANGES, "other")
    changed(file, tmp_path / "without", passes=())
    assert changes_entry(tmp_path / "without") == ()
    assert read_changes(tmp_path / "without") is None and is_folded(tmp_path / "without")
