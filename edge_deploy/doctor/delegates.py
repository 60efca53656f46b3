"""What can be said here of delegates other than XNNPACK, which no machine of this kind runs."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from edge_deploy.doctor.finding import Finding

__all__ = ["check_delegates"]


def check_delegates(installed: Mapping[str, str]) -> tuple[Finding, ...]:
    """Findings on TensorFlow Lite's GPU delegate and ExecuTorch's Vulkan delegate, where their packages are."""
    return (*_gpu(installed), *_vulkan(installed))


def _gpu(installed: Mapping[str, str]) -> list[Finding]:
    if "ai-edge-litert" not in installed:
        return []
    folder = _folder("ai_edge_litert")
    if folder is None or not any(folder.glob("_pywrap_analyzer_wrapper*")):
        text = "TensorFlow Lite's GPU compatibility analysis is not part of this ai-edge-litert"
        return [Finding(level="note", text=text, remedy="inspect --gpu needs ai-edge-litert 2.3 or the like")]
    return [Finding(level="ok", text="TensorFlow Lite's GPU compatibility analysis is at hand: inspect FILE --gpu")]


def _vulkan(installed: Mapping[str, str]) -> list[Finding]:
    folder = _folder("executorch") if "executorch" in installed else None
    if folder is None or not (folder / "backends/vulkan/partitioner").is_dir():
        return []
    return [
        Finding(level="ok", text="ExecuTorch files for Vulkan can be written (convert --delegate vulkan), not run here")
    ]


def _folder(package: str) -> Path | None:
    found = importlib.util.find_spec(package)
    places = list(found.submodule_search_locations or ()) if found is not None else []
    return Path(places[0]) if places else None
