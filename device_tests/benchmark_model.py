"""Drive a `benchmark_model` binary of TensorFlow Lite or LiteRT on a device, and read what it prints.

The binary is the user's own build, for the device; there is none in any package. It prints statistics and no single
values, so that each of its runs gives one value: the mean over its inferences.
"""

from __future__ import annotations

import re
import uuid
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from device_tests.benchmark_subject import check_fit, read_subject
from device_tests.contracts import ProgramTransport
from device_tests.device_list import connect, find_device
from edge_deploy.core.benchmark import BenchmarkReport, Machine, RunConditions
from edge_deploy.core.errors import BadInput, DeviceError, ToolchainError, Unsupported

__all__ = ["Printed", "benchmark_by_binary", "parse_printed"]

RUN_S = 600.0
MEBIBYTE = 1 << 20
NUMBER = r"([-+\d.eE]+)"
COUNT = re.compile(
    rf"count=(\d+)(?: first={NUMBER})? curr={NUMBER}(?: min={NUMBER} max={NUMBER} avg={NUMBER} std={NUMBER})?"
)
MORE = re.compile(rf"\b(p5|median|p95)={NUMBER}")
SUMMARY = re.compile(
    rf"Inference timings in us: Init: {NUMBER}, First inference: {NUMBER}, Warmup \(avg\): {NUMBER}, "
    rf"Inference \(avg\): {NUMBER}"
)
MEMORY = re.compile(
    r"(?:Memory footprint delta from the start of the tool|Peak memory footprint) \(MB\): "
    rf"init={NUMBER} overall={NUMBER}"
)
MONITORED = re.compile(rf"Overall peak memory footprint \(MB\) via periodic monitoring: {NUMBER}")
# The block of the newer tool: "Inference (avg):  1.23 ms (50 runs)".
BLOCK = re.compile(
    rf"^(?:.*\] )?\s*([A-Z][\w ]*?(?: \(\w+\))?)\s*:\s*{NUMBER}\s*ms(?:\s*\((\d+) runs\))?", re.MULTILINE
)
ROW = re.compile(
    rf"^\t?\s*(\S+)\s+{NUMBER}\s+{NUMBER}\s+{NUMBER}\s+{NUMBER}%\s+{NUMBER}%\s+{NUMBER}\s+(\d+)\s+(\S.*?):?\d*\s*$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """What the tool printed.

    Attributes:
        init_s: Loading and preparing.
        warm_up_s: Mean of its warm-up.
        runs: Inferences that its statistics are over; `mean_s`, `least_s` and `most_s` are theirs.
        quantiles_s: By name (p5, median, p95), where it prints them.
        peak_bytes: Above what the process had at its start; None where it was not printed.
        layer_s: Mean seconds by node, in order; empty without --enable_op_profiling.
    """

    init_s: float
    warm_up_s: float
    runs: int
    mean_s: float
    least_s: float | None = None
    most_s: float | None = None
    std_s: float | None = None
    quantiles_s: dict[str, float] = field(default_factory=dict)
    peak_bytes: int | None = None
    layer_s: dict[str, float] = field(default_factory=dict)


def parse_printed(text: str) -> Printed:
    """Read the output of `benchmark_model`: the classic lines, or the block of the newer tool.

    Raises:
        ToolchainError: It holds no result; its last words are told.
    """
    counts = [found for found in COUNT.finditer(text) if found[6] is not None]
    summary = SUMMARY.search(text)
    memory, monitored = MEMORY.search(text), MONITORED.search(text)
    peak = float(monitored[1]) if monitored else float(memory[2]) if memory else None
    peak_bytes = None if peak is None or peak < 0 else int(peak * MEBIBYTE)
    if summary is not None:
        last = counts[-1] if counts else None
        tail = text[last.start() :].partition("\n")[0] if last else ""
        return Printed(
            init_s=float(summary[1]) * 1e-6,
            warm_up_s=float(summary[3]) * 1e-6,
            runs=int(last[1]) if last else 1,
            mean_s=float(summary[4]) * 1e-6,
            least_s=float(last[4]) * 1e-6 if last else None,
            most_s=float(last[5]) * 1e-6 if last else None,
            std_s=float(last[7]) * 1e-6 if last else None,
            quantiles_s={name: float(value) * 1e-6 for name, value in MORE.findall(tail)},
            peak_bytes=peak_bytes,
            layer_s=_layers(text),
        )
    block = {found[1].lower(): found for found in BLOCK.finditer(text)}
    mean = block.get("inference (avg)")
    if mean is None:
        words = text.strip()[-500:] or "nothing"
        raise ToolchainError(f"benchmark_model: printed no result. Its last words:\n{words}")

    def seconds(name: str) -> float | None:
        return float(block[name][2]) * 1e-3 if name in block else None

    return Printed(
        init_s=seconds("model initialization") or 0.0,
        warm_up_s=seconds("warmup (avg)") or 0.0,
        runs=int(mean[3] or 1),
        mean_s=float(mean[2]) * 1e-3,
        least_s=seconds("inference (min)"),
        most_s=seconds("inference (max)"),
        std_s=seconds("inference (std)"),
        peak_bytes=peak_bytes,
        layer_s=_layers(text),
    )


def _layers(text: str) -> dict[str, float]:
    """Milliseconds of the last "Run Order" table, by name; a name that comes again gets its number."""
    _, marker, table = text.rpartition("Run Order")
    found: dict[str, float] = {}
    for line in table.splitlines()[1:] if marker else ():
        if "====" in line:
            break
        row = ROW.match(line)
        if row is not None:
            name = row[9].strip("[]")
            found[name if name not in found else f"{name}#{len(found)}"] = float(row[4]) * 1e-3
    return found


def benchmark_by_binary(
    model: Path,
    *,
    binary: Path,
    device: str = "host",
    threads: int = 1,
    runs: int = 50,
    rounds: int = 6,
    min_seconds: float = 1.0,
    layers: bool = False,
    arguments: tuple[str, ...] = (),
) -> BenchmarkReport:
    """Push the binary and a .tflite file, run it `rounds` times, and report the mean of each run as one value.

    Args:
        model: A `.tflite` file, or an artifact of one.
        runs: Inferences of each run at least, and `min_seconds` of time.
        layers: Ask for the time of each node in one more run.
        arguments: Further flags of the tool, e.g. "--use_gpu=true".

    Raises:
        BadInput: No such file, or an option is out of range.
        Unsupported: It is no .tflite file, or the device runs no programs.
        DeviceError: The device is gone, or the binary is not for its processor.
        ToolchainError: The binary printed no result.
    """
    if not binary.is_file():
        raise BadInput(f"{binary}: no such file; give a benchmark_model that was built for the device.")
    if min(threads, runs, rounds) < 1 or min_seconds < 0:
        raise BadInput("benchmark_model: threads, runs and rounds must be at least 1, and min_seconds not negative.")
    subject = read_subject(model)
    if subject.format != "tflite":
        raise Unsupported(f"{model}: benchmark_model runs .tflite files only.")
    where = find_device(device)
    check_fit([subject], where)
    file, name, digest = next(each for each in subject.files if each[1].endswith(".tflite"))
    with closing(connect(where)) as opened:
        if not hasattr(opened, "complete"):
            raise Unsupported(f"--device {device}: runs no programs of the user's.")
        transport = cast(ProgramTransport, opened)
        tool = transport.push(binary, "tool/benchmark_model")
        graph = transport.push(file, f"0/{name}", sha256=digest)
        command = [
            *(tool, f"--graph={graph}", f"--num_threads={threads}", f"--num_runs={runs}", "--warmup_runs=1"),
            *(f"--min_secs={min_seconds:g}", "--report_peak_memory_footprint=true", *arguments),
        ]
        printed = [_run(transport, command, binary) for _ in range(rounds)]
        profiled = _run(transport, [*command, "--enable_op_profiling=true"], binary) if layers else None
    seconds = profiled.layer_s if profiled is not None else {}
    return BenchmarkReport(
        artifact=subject.name,
        format=subject.format,
        recipe=subject.recipe,
        sha256=subject.sha256,
        model_bytes=subject.model_bytes,
        device=where,
        machine=Machine(
            cpu_model=where.core or "unknown",
            isa=where.isa,
            features=(),
            cores=where.cores,
            ram_bytes=where.ram_bytes,
            governor=None,
            kernel="unknown",
        ),
        conditions=RunConditions(
            threads=threads,
            kernels=f"benchmark_model (the user's build) {' '.join(arguments)}".strip(),
            batch=1,
            signature="",
            inputs="random, by benchmark_model",
            calls_per_value=min(each.runs for each in printed),
        ),
        provenance="emulated" if where.kind == "emulated" else "measured",
        group=uuid.uuid4().hex,
        load_s=printed[0].init_s,
        warm_up_s=(printed[0].warm_up_s,),
        rounds_s=tuple((each.mean_s,) for each in printed),
        base_rss_bytes=0,
        peak_rss_bytes=max(each.peak_bytes or 0 for each in printed),
        layer_s=seconds,
        layer_source="profiler" if seconds else "none",
        notes=(
            "by benchmark_model: every value is the mean of one run of it, each in a process of its own",
            "memory above what the tool had at its start"
            if any(each.peak_bytes for each in printed)
            else "memory was not told",
        ),
    )


def _run(transport: ProgramTransport, command: list[str], binary: Path) -> Printed:
    code, text = transport.complete(command, timeout_s=RUN_S)
    if code:
        words = text.strip()[-500:] or "nothing"
        hint = " (is it built for this processor and system?)" if code in (126, 127) else ""
        raise DeviceError(f"{binary}: ended with exit code {code} on the device{hint}. Its last words:\n{words}")
    return parse_printed(text)
