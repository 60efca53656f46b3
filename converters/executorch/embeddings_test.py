import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("executorch")

from converters.executorch.embeddings import quantize_embeddings  # noqa: E402
from converters.executorch.program import name_layers  # noqa: E402


@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
def test_a_quantized_look_up_is_given_ids_of_64_bits(kind):
    """Its kernel ends the process on others."""
    net = torch.nn.Embedding(10, 4)
    graph = torch.export.export(net.eval(), (torch.zeros(1, 3, dtype=kind),)).module()
    name_layers(graph)
    names = [node for node in graph.graph.nodes if node.target is torch.ops.aten.embedding.default]
    from converters.executorch.layers import layer_name

    assert quantize_embeddings(graph, {layer_name(names[0]): 8}, "row") == 1
    operator = torch.ops.quantized_decomposed.embedding_byte.dtype
    (looked_up,) = [node for node in graph.graph.nodes if node.target is operator]
    ids = looked_up.args[5]
    copies = [node for node in graph.graph.nodes if node.target is torch.ops.aten._to_copy.default]
    if kind is torch.int64:
        assert not copies and ids.target is torch.ops.aten.clamp.default
    else:
        assert ids in copies and ids.kwargs["dtype"] is torch.int64
    values = graph(torch.tensor([[0, 9, 3]], dtype=kind))
    torch.testing.assert_close(values, net(torch.tensor([[0, 9, 3]])), atol=0.05, rtol=0.05)
