"""Rows of `make bench-qat`: tables that share an array (ROBE), 100 and 1000 times smaller, and how fast they look up.

Beside them full tables, and tables of the same size as the array whose ids are hashed by modulus: on this log full
tables must beat those by 0.01 AUC, or else the log could not tell ROBE from them.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.compress.train import predict
from converters.contracts import Captured, LowerRequest
from converters.quantize.uniform import integer_limits
from converters.recommender.model import Dense, Interaction, Lookup, Recommender, Table, save
from converters.tflite.recommender_robe import shared_scale
from edge_deploy.bench.qat_smaller import BLOCK, DIM, SEEDS, SmallerRun, data, make_model, table_rows, tuned
from edge_deploy.bench.rows import kept, markdown, revision
from edge_deploy.core import registry
from edge_deploy.core.errors import EdgeDeployError
from edge_deploy.core.quant_spec import spec_for_recipe
from edge_deploy.core.require import require
from edge_deploy.core.robe import RobeTable, make_hash
from edge_deploy.core.tensor import TensorInfo
from edge_deploy.zoo.metrics import auc, paired_difference

__all__ = ["robe_table", "speed_table"]

FACTORS = (100, 1000)
GAP = 0.01
COLUMNS = ("tables", "smaller", "numbers", "test AUC", "to full tables (95 %)", "to hashing (95 %)", "wanted")
BACKENDS = {"tflite": ("litert", "model.tflite"), "executorch": ("executorch", "model.pte")}
ROUNDS, CALLS, IDS = 15, 200, 64


def robe_table(*, fresh: bool, tell: Callable[[str], None]) -> tuple[str, bool]:
    """The table in Markdown, and whether full tables beat hashing by what the comparison needs."""
    full = tuned("full", 1, fresh=fresh, tell=tell)
    lines: list[list[object]] = [_line("full", full, full, None, "")]
    is_met = True
    for factor in FACTORS:
        hashed = tuned("hashed", factor, fresh=fresh, tell=tell)
        robe = tuned("robe", factor, fresh=fresh, tell=tell)
        gap = float(np.median([_auc(a) - _auc(b) for a, b in zip(full, hashed, strict=True)]))
        is_met &= gap >= GAP
        verdict = f"{'met' if gap >= GAP else 'NOT MET'} (full above hashing by {gap:.4f}, at least {GAP})"
        lines.append(_line("hashed by modulus", hashed, full, None, verdict))
        lines.append(_line(f"ROBE, blocks of {BLOCK}", robe, full, hashed, ""))
        for bits in (8, 4):
            rounded = [_rounded(run, bits, fresh=fresh) for run in robe]
            lines.append(_line(f"ROBE, blocks of {BLOCK}, INT{bits}", rounded, full, hashed, ""))
    return markdown(COLUMNS, lines), is_met


def _rounded(run: SmallerRun, bits: int, *, fresh: bool) -> SmallerRun:
    """The run with its array in the integers of a TFLite file."""
    name = f"{run.model.stem}-int{bits}"
    scores = kept(run.model.parent / "robe", name, lambda: _rounded_scores(run, bits), fresh=fresh)
    return replace(run, scores=np.array(scores, np.float32))


def _rounded_scores(run: SmallerRun, bits: int) -> list[float]:
    torch = require("torch", extra="run-executorch")
    model = make_model(run.kind, run.factor, run.seed)
    model.load_state_dict(torch.load(run.model, weights_only=True))
    (array,) = {id(parameter): parameter for parameter in model.tables.parameters()}.values()
    values = array.detach().numpy()
    scale = np.float32(shared_scale(values, bits))
    bottom, top = integer_limits(bits, narrow=bits == 8)
    with torch.no_grad():
        array.copy_(torch.from_numpy(np.clip(np.rint(values / scale), bottom, top) * scale))
    _, _, test = data()
    found: list[float] = predict(model, test.batches())[1].astype(np.float32).tolist()
    return found


def _auc(run: SmallerRun) -> float:
    return auc(run.labels, run.scores)


def _line(
    name: str, runs: list[SmallerRun], full: list[SmallerRun], hashed: list[SmallerRun] | None, verdict: str
) -> list[object]:
    values = [_auc(run) for run in runs]
    return [
        name,
        f"{runs[0].factor} x",
        f"{runs[0].elements:,}",
        f"{np.median(values):.4f} ({min(values):.4f} to {max(values):.4f}, {SEEDS} seeds)",
        "" if runs is full else _difference(full, runs),
        "" if hashed is None else _difference(hashed, runs),
        verdict,
    ]


def _difference(base: list[SmallerRun], runs: list[SmallerRun]) -> str:
    found = [paired_difference("auc", a.labels, a.scores, b.scores) for a, b in zip(base, runs, strict=True)]
    middle, low, high = (
        float(np.median([getattr(each, name) for each in found])) for name in ("difference", "low", "high")
    )
    return f"{middle:+.4f} ({low:+.4f} to {high:+.4f})"


def speed_table(*, fresh: bool) -> str:
    """Microseconds a look-up of a row of 16 through a session, one thread, interleaved."""
    value = kept(Path("build/bench-qat/smaller"), "robe-speed", _speeds, fresh=fresh)
    names = [name for name in value if name != "rounds"]
    lines = [[name, f"{value[name]['call']:.1f}", f"{value[name]['row']:.3f}", value[name]["kB"]] for name in names]
    return markdown(("look-ups", f"us a call of {IDS} ids", "us a row", "kB"), lines)


def _speeds() -> dict[str, Any]:
    rows = sum(table_rows())
    ids = np.random.default_rng(0).integers(0, rows, (ROUNDS, IDS))
    with tempfile.TemporaryDirectory(prefix="edge-deploy-robe-") as scratch:
        opened = {}
        for target in BACKENDS:
            for name, blocks in (
                ("full", 0),
                ("ROBE, blocks of 1", 1),
                ("ROBE, blocks of 8", 8),
                ("ROBE, blocks of 16", 16),
            ):
                for recipe in ("float32", "int8", "int4"):
                    place = Path(scratch, f"{target} {name} {recipe}")
                    opened[place.name] = _session(place, target, recipe, rows, blocks)
        seconds: dict[str, list[float]] = {name: [] for name in opened}
        for number in range(ROUNDS):
            for name, (session, _) in opened.items():
                info = session.signature.inputs[0]
                feeds = {info.name: ids[number].reshape(1, IDS).astype(info.dtype)}
                session.run(feeds)
                start = time.perf_counter()
                for _ in range(CALLS):
                    session.run(feeds)
                seconds[name].append((time.perf_counter() - start) / CALLS)
        found = {}
        for name, (session, size) in opened.items():
            session.close()
            call = statistics.median(seconds[name]) * 1e6
            found[name] = {"call": call, "row": call / IDS, "kB": f"{size / 1e3:.0f}"}
    return found


def _session(place: Path, target: str, recipe: str, rows: int, block: int) -> tuple[Any, int]:
    """A session over one table and nothing else that counts, and the bytes of its files."""
    rng = np.random.default_rng(1)
    robe = None
    if block:
        robe = RobeTable(hash=make_hash(size=rows * DIM // 100, dim=DIM, block=block), rows=rows)
    shape = (rows, DIM) if robe is None else (robe.hash.size, 1)
    table = Table(name="table", rows=rows, dim=DIM, weight="table", robe=robe)
    model = Recommender(
        inputs=(TensorInfo(name="ids", shape=(1, IDS), dtype="int64"),),
        output=TensorInfo(name="score", shape=(1, 1), dtype="float32", meaning="logit"),
        tables=(table,),
        lookups=tuple(Lookup(table=0, input="ids", column=column) for column in range(IDS)),
        interaction=Interaction(kind="concat", top_inputs=tuple(f"lookup:{column}" for column in range(IDS))),
        top=(Dense(name="top", weight="top", in_features=IDS * DIM, out_features=1),),
    )
    arrays = {
        "table": rng.standard_normal(shape).astype(np.float32),
        "top": rng.standard_normal((1, IDS * DIM)).astype(np.float32),
    }
    save(model, arrays, place / "recommender")
    (place / "out").mkdir()
    captured = Captured(
        name="table",
        framework="torch",
        kind="recommender",
        folder=place,
        inputs=model.inputs,
        outputs=(model.output,),
        recommender=place / "recommender",
    )
    spec = spec_for_recipe(recipe, mlp_bits=32, fallback_bits=32)
    request = LowerRequest(captured=captured, spec=spec, folder=place / "out")
    lowered = registry.load("converters.targets", target).lower(request)
    backend, file = BACKENDS[target]
    session = registry.load("runtimes.backends", backend).open_model(
        place / "out" / file, data_files=(), known=lowered.signatures, signature=None, threads=1, kernels="default"
    )
    return session, sum(entry.bytes for entry in lowered.files if entry.role in ("model", "data"))


if __name__ == "__main__":
    print(f"revision {revision()}; medians over three seeds, intervals by DeLong\n")
    try:
        anew = "--fresh" in sys.argv[1:]
        text, is_met = robe_table(fresh=anew, tell=lambda told: print(f"- {told}", file=sys.stderr, flush=True))
        print(f"{text}\n\n{speed_table(fresh=anew)}")
    except EdgeDeployError as error:
        sys.exit(f"error: {error}")
    sys.exit(not is_met)
