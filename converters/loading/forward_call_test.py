import pytest

from converters.loading.forward_call import bind, flat_module
from edge_deploy.core.errors import BadInput
from edge_deploy.core.tensor import TensorInfo

torch = pytest.importorskip("torch")


class Pair(torch.nn.Module):
    def forward(self, left, right, scale=None):
        return left - right if scale is None else (left - right) * scale


class Lists(torch.nn.Module):
    def forward(self, dense, ids, *, offset):
        return dense + ids[0] * 10 + ids[1] * 100 + offset


def _inputs(*names):
    return tuple(TensorInfo(name=name, shape=(1, 2), dtype="float32") for name in names)


def _call(module, *names):
    binding = bind("m:f", module, _inputs(*names))
    values = {"left": 5.0, "right": 3.0, "scale": 2.0, "dense": 1.0, "ids_0": 2.0, "ids_1": 3.0, "offset": 0.5}
    tensors = [torch.tensor(values.get(info.name, 7.0)) for info in binding.inputs]
    return binding, float(flat_module(module, binding)(*tensors))


def test_names_of_parameters_decide_whatever_their_order():
    assert _call(Pair(), "right", "left")[1] == 2.0
    binding, _ = _call(Pair(), "right", "left")
    assert [info.name for info in binding.inputs] == ["left", "right"]
    assert binding.is_plain


def test_other_names_go_by_position():
    binding, value = _call(Pair(), "a", "b")
    assert binding.is_plain
    assert value == 0.0


def test_optional_parameters_can_be_given_or_left_out():
    assert _call(Pair(), "left", "right", "scale")[1] == 4.0


def test_list_items_and_keyword_only_parameters_become_flat_inputs():
    binding, value = _call(Lists(), "offset", "ids_1", "dense", "ids_0")
    assert [info.name for info in binding.inputs] == ["dense", "ids_0", "ids_1", "offset"]
    assert value == 1.0 + 20.0 + 300.0 + 0.5


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "needs its inputs: pass --input"),
        (("left", "wrong"), "--input wrong: forward\\(left, right, scale\\) of m:f has no such parameter"),
        (("left",), "forward needs right"),
        (("left", "left"), "named twice"),
    ],
)
def test_inputs_that_do_not_fit_forward_are_refused(names, message):
    with pytest.raises(BadInput, match=message):
        bind("m:f", Pair(), _inputs(*names))


def test_gaps_in_a_list_are_refused():
    with pytest.raises(BadInput, match="numbered from 0 without gaps"):
        bind("m:f", Lists(), _inputs("dense", "offset", "ids_0", "ids_2"))
