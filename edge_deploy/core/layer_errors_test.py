import numpy as np
import pytest

from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_errors import LayerError, LayerErrors, WeightHistogram, weight_histogram
from edge_deploy.core.serde import dumps, loads


def test_every_weight_is_counted_once_before_and_after():
    before = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    counted = weight_histogram(before, np.round(before * 4) / 4, bins=50)
    assert sum(counted.float_counts) == sum(counted.quantized_counts) == 1000
    assert len(counted.edges) == 51


def test_equal_weights_have_a_histogram_too():
    assert sum(weight_histogram(np.ones(7), np.ones(7)).float_counts) == 7


def test_layer_errors_survive_the_trip_through_json():
    counted = weight_histogram(np.arange(9.0), np.arange(9.0), bins=4)
    errors = LayerErrors(
        layers=(LayerError(layer="a", snr_db=30.5, weights=counted), LayerError(layer="b")), method="m"
    )
    assert loads(LayerErrors, dumps(errors), where="x") == errors


@pytest.mark.parametrize("edges", [(), (0.0,), (0.0, 1.0), (0.0, 2.0, 1.0)])
def test_edges_that_do_not_fit_the_counts_or_do_not_ascend_are_refused(edges):
    with pytest.raises(BadInput, match="histogram"):
        WeightHistogram(edges=edges, float_counts=(1, 2), quantized_counts=(1, 2))
