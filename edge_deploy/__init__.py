"""edge-deploy: trained DLRMs and CNNs as verified INT8/INT4 TFLite and ExecuTorch artifacts.

The journeys, loaded when they are first used:

    convert           a trained model becomes verified artifacts; a `convert_request` says which
    verify            check a written artifact again, against its source where a CaptureRequest names it
    inspect           what any .tflite or .pte file contains
    benchmark         measure artifacts on a device; read_report and compare say which of two is faster
    fit               does a model fit a device, which layer needs most, what would help
    export_tflm       sources for TensorFlow Lite Micro, after every operator was tried on its kernels
    bench_suite       quality, latency, memory and flash of models on the tasks of a suite
    loadgen           let MLCommons' LoadGen measure an artifact
    live              answer requests with a model split between here and a cloud while the cut moves; a RunRequest
                      says how; AsyncLiveSession is the same for asyncio; replay looks at a recorded run
    list_cuts         where an artifact can be cut between edge and cloud, and what crosses there
    plan_partition    the best cut for two profiles and the state of the link
    profile           seconds per layer of an artifact on a device; profile_under_load, estimate_profile, fit_predictor
    codec_loss        what a lossy codec costs at a cut that was split
    open_session      run an artifact or a model file
    read_artifact     the manifest of an artifact as a value
    read_trace        a trace of link and load out of a file; generate_trace makes one from a seed
    simulate          policies that move the cut along traces, against the static cut and oracles; simulate_sweep runs
                      models, devices, traces, policies and seeds here or on a cluster
    sign              sign manifests with an Ed25519 key; verify_signatures checks them and every file
    split             halves for the edge and the cloud
    study_measured_sweep   what a measured sweep of conditions and cuts shows; study_sweep models our own
    write_report      one HTML page about a folder of artifacts
    debug             which layers cost an artifact its accuracy, what would help, proven; a DebugRequest says of what
    search            the smallest or fastest mix of precisions within a loss; a SearchRequest says of what
    diagnose          look at this installation
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from converters.contracts import CaptureRequest
    from device_tests.compare import compare
    from edge_deploy.api.bench_suite import bench_suite
    from edge_deploy.api.benchmark import benchmark_and_keep as benchmark
    from edge_deploy.api.benchmark import read_report
    from edge_deploy.api.codec_loss import codec_loss
    from edge_deploy.api.convert import Conversion, convert
    from edge_deploy.api.cuts import list_cuts
    from edge_deploy.api.debug import debug
    from edge_deploy.api.debug_request import DebugRequest
    from edge_deploy.api.export_tflm import export_tflm
    from edge_deploy.api.fit import fit
    from edge_deploy.api.inspect import inspect
    from edge_deploy.api.loadgen import loadgen
    from edge_deploy.api.plan import PlanRequest, plan_partition, tabulate_plans
    from edge_deploy.api.replay import replay
    from edge_deploy.api.request import ConvertRequest, convert_request
    from edge_deploy.api.run import RunRequest, live
    from edge_deploy.api.search import search
    from edge_deploy.api.search_request import SearchRequest
    from edge_deploy.api.sign import sign, verify_signatures
    from edge_deploy.api.simulate import simulate_policies as simulate
    from edge_deploy.api.simulation_request import SimulateRequest
    from edge_deploy.api.simulation_sweep import simulate_sweep
    from edge_deploy.api.split import split
    from edge_deploy.api.study import study_measured_sweep
    from edge_deploy.api.sweep import sweep as study_sweep
    from edge_deploy.api.verify import verify
    from edge_deploy.core.artifact import Artifact
    from edge_deploy.core.conditions import Conditions
    from edge_deploy.core.errors import EdgeDeployError
    from edge_deploy.core.quant_spec import QuantSpec
    from edge_deploy.core.tensor import TensorInfo
    from edge_deploy.doctor import diagnose
    from edge_deploy.report import write_report
    from partitioner.live.asynchronous import AsyncLiveSession
    from partitioner.live.options import LiveOptions
    from partitioner.traces.generate import generate as generate_trace
    from partitioner.traces.read import read_trace
    from runtimes.folder import read_artifact
    from runtimes.session import open_session

__version__ = "0.1.0"
__all__ = [
    "Artifact",
    "AsyncLiveSession",
    "CaptureRequest",
    "Conditions",
    "Conversion",
    "ConvertRequest",
    "DebugRequest",
    "EdgeDeployError",
    "LiveOptions",
    "PlanRequest",
    "QuantSpec",
    "RunRequest",
    "SearchRequest",
    "SimulateRequest",
    "TensorInfo",
    "bench_suite",
    "benchmark",
    "codec_loss",
    "compare",
    "convert",
    "debug",
    "diagnose",
    "estimate_profile",
    "export_tflm",
    "fit",
    "fit_predictor",
    "generate_trace",
    "inspect",
    "list_cuts",
    "live",
    "loadgen",
    "open_session",
    "convert_request",
    "plan_partition",
    "profile",
    "profile_under_load",
    "read_artifact",
    "read_report",
    "read_trace",
    "replay",
    "sign",
    "search",
    "simulate",
    "simulate_sweep",
    "study_measured_sweep",
    "study_sweep",
    "tabulate_plans",
    "split",
    "verify",
    "verify_signatures",
    "write_report",
]

_HOMES = {
    "Artifact": "edge_deploy.core.artifact:Artifact",
    "AsyncLiveSession": "partitioner.live.asynchronous:AsyncLiveSession",
    "LiveOptions": "partitioner.live.options:LiveOptions",
    "RunRequest": "edge_deploy.api.run:RunRequest",
    "live": "edge_deploy.api.run:live",
    "replay": "edge_deploy.api.replay:replay",
    "CaptureRequest": "converters.contracts:CaptureRequest",
    "Conditions": "edge_deploy.core.conditions:Conditions",
    "Conversion": "edge_deploy.api.convert:Conversion",
    "ConvertRequest": "edge_deploy.api.request:ConvertRequest",
    "estimate_profile": "edge_deploy.api.profile:estimate",
    "fit_predictor": "edge_deploy.api.profile:fit",
    "profile": "edge_deploy.api.profile:profile",
    "profile_under_load": "edge_deploy.api.profile:under_load",
    "EdgeDeployError": "edge_deploy.core.errors:EdgeDeployError",
    "PlanRequest": "edge_deploy.api.plan:PlanRequest",
    "QuantSpec": "edge_deploy.core.quant_spec:QuantSpec",
    "SimulateRequest": "edge_deploy.api.simulation_request:SimulateRequest",
    "TensorInfo": "edge_deploy.core.tensor:TensorInfo",
    "benchmark": "edge_deploy.api.benchmark:benchmark_and_keep",
    "bench_suite": "edge_deploy.api.bench_suite:bench_suite",
    "compare": "device_tests.compare:compare",
    "loadgen": "edge_deploy.api.loadgen:loadgen",
    "read_report": "edge_deploy.api.benchmark:read_report",
    "codec_loss": "edge_deploy.api.codec_loss:codec_loss",
    "convert": "edge_deploy.api.convert:convert",
    "DebugRequest": "edge_deploy.api.debug_request:DebugRequest",
    "SearchRequest": "edge_deploy.api.search_request:SearchRequest",
    "debug": "edge_deploy.api.debug:debug",
    "search": "edge_deploy.api.search:search",
    "diagnose": "edge_deploy.doctor:diagnose",
    "export_tflm": "edge_deploy.api.export_tflm:export_tflm",
    "fit": "edge_deploy.api.fit:fit",
    "generate_trace": "partitioner.traces.generate:generate",
    "inspect": "edge_deploy.api.inspect:inspect",
    "list_cuts": "edge_deploy.api.cuts:list_cuts",
    "open_session": "runtimes.session:open_session",
    "convert_request": "edge_deploy.api.request:convert_request",
    "plan_partition": "edge_deploy.api.plan:plan_partition",
    "read_artifact": "runtimes.folder:read_artifact",
    "read_trace": "partitioner.traces.read:read_trace",
    "sign": "edge_deploy.api.sign:sign",
    "simulate": "edge_deploy.api.simulate:simulate_policies",
    "study_measured_sweep": "edge_deploy.api.study:study_measured_sweep",
    "study_sweep": "edge_deploy.api.sweep:sweep",
    "tabulate_plans": "edge_deploy.api.plan:tabulate_plans",
    "simulate_sweep": "edge_deploy.api.simulation_sweep:simulate_sweep",
    "split": "edge_deploy.api.split:split",
    "verify": "edge_deploy.api.verify:verify",
    "verify_signatures": "edge_deploy.api.sign:verify_signatures",
    "write_report": "edge_deploy.report:write_report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edge_deploy' has no attribute {name!r}")
    module, attribute = _HOMES[name].split(":")
    return getattr(importlib.import_module(module), attribute)
