import numpy as np
import pytest

from edge_deploy.core.errors import Unsupported

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

IDS = np.array([4, 1, 1, 9, 0, 7, 2])
WEIGHTS = np.array([0.5, -1, 2, 1, 3, -2, 0.25], np.float32)


class Bags(torch.nn.Module):
    def __init__(self, mode: str, *, is_even: bool, has_weights: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.bag = torch.nn.EmbeddingBag(10, 4, mode=mode)
        self.is_even = is_even
        self.has_weights = has_weights

    def forward(self, ids, *rest):
        if self.is_even:
            return self.bag(ids)
        return self.bag(ids, rest[0], per_sample_weights=rest[1] if self.has_weights else None)


def prepared(module, examples, folder):
    """The ONNX model as PyTorch exports it, and as it is converted."""
    from converters.loading.onnx_model import read_onnx, write_prepared

    names = ["ids", "offsets", "weights"][: len(examples)]
    torch.onnx.export(module.eval(), examples, folder / "net.onnx", input_names=names, dynamo=False, opset_version=18)
    assert any(node.op_type == "Loop" for node in onnx.load(folder / "net.onnx").graph.node)
    write_prepared(folder / "net.onnx", read_onnx(folder / "net.onnx").inputs, folder / "prepared.onnx")
    operators = [node.op_type for node in onnx.load(folder / "prepared.onnx").graph.node]
    assert "Loop" not in operators
    return folder / "prepared.onnx", operators


def answers(path, feeds):
    from converters.loading.onnx_model import open_onnx

    return open_onnx(path).run(None, feeds)[0]


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_equally_long_bags_are_a_look_up_and_a_reduction(mode, tmp_path):
    module = Bags(mode, is_even=True)
    ids = torch.from_numpy(np.array([[1, 2, 2], [9, 0, 5]]))
    path, operators = prepared(module, (ids,), tmp_path)
    assert "MatMul" not in operators
    for seed in range(3):
        other = np.random.default_rng(seed).integers(0, 10, (2, 3))
        want = module(torch.from_numpy(other)).detach().numpy()
        np.testing.assert_allclose(answers(path, {"ids": other}), want, atol=1e-6)


@pytest.mark.parametrize(("mode", "has_weights"), [("sum", False), ("mean", False), ("sum", True)])
@pytest.mark.parametrize("offsets", [[0, 2, 5], [0, 7, 7], [0, 0, 3]])
def test_bags_between_offsets_are_exact_also_empty_ones(mode, has_weights, offsets, tmp_path):
    module = Bags(mode, is_even=False, has_weights=has_weights)
    arrays = [IDS, np.array([0, 2, 5]), *([WEIGHTS] if has_weights else [])]
    path, _ = prepared(module, tuple(map(torch.from_numpy, arrays)), tmp_path)
    feeds = {"ids": IDS, "offsets": np.array(offsets)} | ({"weights": WEIGHTS} if has_weights else {})
    want = module(*map(torch.from_numpy, feeds.values())).detach().numpy()
    np.testing.assert_allclose(answers(path, feeds), want, atol=1e-6)


def test_another_loop_is_refused_by_name(tmp_path):
    from converters.passes.onnx_bags import rewrite_bags

    @torch.jit.script
    def doubled(x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        for _ in range(int(times)):
            x = x * 2
        return x

    class Net(torch.nn.Module):
        def forward(self, x, times):
            return doubled(x, times)

    torch.onnx.export(Net(), (torch.ones(2), torch.tensor(3)), tmp_path / "loop.onnx", dynamo=False)
    with pytest.raises(Unsupported, match="feed-forward") as caught:
        rewrite_bags(onnx.load(tmp_path / "loop.onnx"), where="loop.onnx")
    assert [refusal.op for refusal in caught.value.refusals] == ["Loop"]
