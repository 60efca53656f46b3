import pytest

from edge_deploy.api.labels import check_labels
from edge_deploy.api.request import convert_request
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo


def outputs(*shape):
    return (TensorInfo(name="scores", shape=shape, dtype="float32"),)


@pytest.mark.parametrize(
    ("count", "shape"), [(0, (1, 10)), (10, (1, 10)), (10, (-1, 10)), (2, (-1, 1)), (5, (1, 5, 8, 8)), (7, (-1, -1))]
)
def test_one_name_for_each_class_is_taken(count, shape):
    check_labels(tuple("abcdefghij"[:count]), outputs(*shape))


@pytest.mark.parametrize(("count", "shape"), [(9, (1, 10)), (1001, (-1, 1000)), (3, (-1, 1)), (4, (1, 5, 8, 8))])
def test_another_number_of_names_is_refused_with_both_numbers(count, shape):
    with pytest.raises(BadInput, match=rf"--labels: {count} class names, output scores has"):
        check_labels(("name",) * count, outputs(*shape))


def test_an_empty_file_of_names_is_refused(tmp_path):
    (tmp_path / "names.txt").write_text("\n\n")
    with pytest.raises(BadInput, match=r"names\.txt: is empty"):
        convert_request(
            "net.h5", to=["tflite"], precision=["int8"], out=tmp_path / "out", labels=tmp_path / "names.txt"
        )
