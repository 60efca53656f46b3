"""Whether the installed runtimes can be imported: tried in child processes, as a broken one can end its own."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

from edge_deploy.core.child import run_in_child
from edge_deploy.core.errors import EdgeDeployError
from edge_deploy.doctor.finding import Finding

__all__ = ["ENGINES", "Engine", "check_engines", "import_module"]

IMPORT_TIMEOUT_S = 120.0
# The last tflite-runtime that computes tables with one scale per row as if all rows had the first row's.
WRONG_TFLITE_RUNTIME = (2, 14)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A runtime: the distribution that brings it, what to import, and the extra that installs it."""

    package: str
    module: str
    extra: str


ENGINES = (
    Engine(package="ai-edge-litert", module="ai_edge_litert.interpreter", extra="run-tflite"),
    Engine(package="tflite-runtime", module="tflite_runtime.interpreter", extra=""),
    Engine(package="tflite-micro", module="tflite_micro.python.tflite_micro.runtime", extra="run-tflite-micro"),
    Engine(package="executorch", module="executorch.runtime", extra="run-executorch"),
    Engine(package="onnxruntime", module="onnxruntime", extra="run-onnx"),
)


def check_engines(
    installed: Mapping[str, str], *, try_imports: bool = True, engines: tuple[Engine, ...] = ENGINES
) -> tuple[Finding, ...]:
    """A finding for each installed runtime, and one when there is none."""
    present = [engine for engine in engines if engine.package in installed]
    findings = [_try(engine) for engine in present] if try_imports else []
    findings += _old_tflite_runtime(installed)
    if not present:
        offers = " or ".join(f"'edge-deploy[{engine.extra}]'" for engine in engines if engine.extra)
        findings.append(
            Finding(
                level="note",
                text="no runtime is installed: artifacts can be read but not run",
                remedy=f"pip install {offers}",
            )
        )
    return tuple(findings)


def import_module(module: str) -> None:
    """What the child does."""
    importlib.import_module(module)


def _try(engine: Engine) -> Finding:
    try:
        run_in_child(
            "edge_deploy.doctor.engines:import_module",
            {"module": engine.module},
            stage=f"import of {engine.module}",
            timeout_s=IMPORT_TIMEOUT_S,
            environment={"TF_CPP_MIN_LOG_LEVEL": "3"},
        )
    except EdgeDeployError as error:
        again = f"pip install --force-reinstall 'edge-deploy[{engine.extra}]'" if engine.extra else "reinstall it"
        return Finding(level="problem", text=f"{engine.package} is installed but does not start: {error}", remedy=again)
    return Finding(level="ok", text=f"{engine.package} starts")


def _old_tflite_runtime(installed: Mapping[str, str]) -> list[Finding]:
    version = installed.get("tflite-runtime")
    if version is None:
        return []
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers > WRONG_TFLITE_RUNTIME:
        return [Finding(level="note", text=f"tflite-runtime {version}: its successor is ai-edge-litert")]
    return [
        Finding(
            level="note" if "ai-edge-litert" in installed else "problem",
            text=f"tflite-runtime {version} is old: it computes embedding tables with one scale per row wrongly",
            remedy="pip install 'edge-deploy[run-tflite]'",
        )
    ]
