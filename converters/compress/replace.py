"""Exchange modules of a model in place: how quantized, hashed and other embeddings plug into any recommender."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edge_deploy.core.errors import BadInput
from edge_deploy.core.require import require

if TYPE_CHECKING:
    import torch

__all__ = ["embeddings", "linears", "replace_modules"]


def embeddings(model: torch.nn.Module) -> dict[str, Any]:
    """The `nn.Embedding` and `nn.EmbeddingBag` modules by name."""
    torch = require("torch", extra="run-executorch")
    return _of_kind(model, (torch.nn.Embedding, torch.nn.EmbeddingBag))


def linears(model: torch.nn.Module) -> dict[str, Any]:
    """The `nn.Linear` modules by name."""
    torch = require("torch", extra="run-executorch")
    return _of_kind(model, (torch.nn.Linear,))


def replace_modules(
    model: torch.nn.Module, modules: dict[str, Any], make: Callable[[str, Any], torch.nn.Module]
) -> dict[str, torch.nn.Module]:
    """Put `make(name, module)` in the place of each of `modules`; a module used twice is replaced by one.

    Returns:
        The new modules by name.

    Raises:
        BadInput: The model itself is one of the modules.
    """
    if "" in modules:
        raise BadInput("the model is a single layer; wrap it in a module of its own.")
    made: dict[int, Any] = {}
    new = {}
    # Also names under which a module is reachable a second time must lead to the new one.
    places = [(name, module) for name, module in model.named_modules(remove_duplicate=False)]
    wanted = {id(module): name for name, module in modules.items()}
    for name, module in places:
        if id(module) not in wanted:
            continue
        if id(module) not in made:
            made[id(module)] = make(wanted[id(module)], module)
            new[wanted[id(module)]] = made[id(module)]
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, made[id(module)])
    return new


def _of_kind(model: Any, kinds: tuple[Any, ...]) -> dict[str, Any]:
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
