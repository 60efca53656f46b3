import numpy as np


def test_a_coarse_layer_keeps_the_mean_of_its_outputs():
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    from converters.executorch import bias_correction
    from converters.executorch.program import export, name_layers
    from converters.executorch.quantize import INT4_STORED, _quantizer
    from edge_deploy.core.tensor import TensorInfo

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(6, 5, 3, bias=False), torch.nn.ReLU(), torch.nn.Conv2d(5, 4, 1)).eval()
    info = (TensorInfo(name="x", shape=(16, 6, 8, 8), dtype="float32"),)
    batch = (torch.rand(16, 6, 8, 8) + 1.0,)
    with torch.no_grad():
        want = module[0](*batch)

    def first_outputs(correct):
        graph = export(module, info, (16,)).module(check_guards=False)
        name_layers(graph)
        prepared = prepare_pt2e(graph, _quantizer(INT4_STORED, {"0": INT4_STORED, "2": INT4_STORED}))
        prepared(*batch)
        ranges = [(m.min_val, m.max_val) for m in prepared.modules() if hasattr(m, "min_val")]
        if correct:
            assert bias_correction.correct_biases(prepared, [batch]) == 2
        assert all(
            torch.equal(low, m.min_val) and torch.equal(high, m.max_val)
            for (low, high), m in zip(ranges, [m for m in prepared.modules() if hasattr(m, "min_val")], strict=True)
        )
        converted = convert_pt2e(prepared)
        found = []

        class First(torch.fx.Interpreter):
            def run_node(self, node):
                result = super().run_node(node)
                if node.target is torch.ops.aten.conv2d.default:
                    found.append(result)
                return result

        with torch.no_grad():
            First(converted).run(*batch)
        return found[0]

    def shift(found):
        return np.abs((found - want).mean((0, 2, 3)).numpy()).max()

    assert shift(first_outputs(True)) < 0.1 * shift(first_outputs(False))
