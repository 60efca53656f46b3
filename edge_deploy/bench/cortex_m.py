"""`make bench-cortex_m`: ExecuTorch files for Cortex-M of the reference nets, made in an environment of its own.

What ExecuTorch's Cortex-M backend imports (tosa-tools) asks for an older NumPy than everything else here, and works
with the newer one. So it is installed without its dependencies, and beside this environment instead of in it: a second
one in build/bench-cortex-m sees the packages of this one and has tosa-tools on top. The tests that are skipped without
tosa-tools run there too. Needs EDGE_DEPLOY_DATA and a package index. Files are described, and not run: their kernels
are those of CMSIS-NN on a board.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from edge_deploy.bench.models import DESCRIPTIONS, development_data
from edge_deploy.bench.rows import markdown

__all__ = ["main"]

HOME = Path("build/bench-cortex-m")
CORES = ("cortex-m4", "cortex-m55")
CALIBRATION_SAMPLES = 100
TESTS = "edge_deploy/api/convert_cortex_m_test.py"
COLUMNS = ("model", "core", "model.pte B", "planned memory B", "layers as asked", "operators")


def environment() -> Path:
    """The Python of the second environment, which is made where it is not there yet."""
    folder = HOME / "environment"
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--no-deps", "tosa-tools==2026.5.0"], check=True)
        subprocess.run([*pip, "jsonschema", "semver"], check=True)
        inside = next(folder.glob("lib/python*/site-packages"))
        # Looked through after its own packages, which therefore count where both have one.
        (inside / "beside.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
        (folder / "made").touch()
    return python


def row(python: Path, name: str, source: Path, calibrate: str, core: str) -> tuple[object, ...]:
    """Convert one net for one core there, and say what the file tells of itself."""
    from runtimes.folder import read_artifact
    from runtimes.formats.pte import read_pte

    out = HOME / f"{name}-{core}"
    command = [str(python), "-m", "edge_deploy.cli.main", "convert", str(source), "--to", "executorch"]
    command += ["--precision", "int8", "--delegate", core, "--calibrate", str(DESCRIPTIONS / calibrate)]
    command += ["--calibrate-limit", str(CALIBRATION_SAMPLES), "--out", str(out), "--force", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return (name, core, "", "", "", f"failed: {words[-1][:300]}")
    folder = next(each for each in out.iterdir() if each.is_dir())
    artifact = read_artifact(folder)
    method = read_pte(folder / "model.pte").main
    asked = sum(outcome.is_as_asked for outcome in artifact.outcomes)
    operators = ", ".join(dict.fromkeys(method.operators))
    layers = f"{asked} of {len(artifact.outcomes)}"
    return (name, core, artifact.model_file.bytes, method.planned_bytes, layers, operators)


def main() -> None:
    """Print the table, and run the tests."""
    models = development_data() / "models"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    python = environment()
    nets = (
        ("ResNet-8", next((models / "mlperf_tiny_ic_resnet8").glob("*.h5")), "cifar10_train4k.toml"),
        ("DS-CNN", models / "mlperf_tiny_kws_dscnn" / "kws_ref_model", "kws01_calibrate.toml"),
    )
    rows = [row(python, name, source, data, core) for name, source, data in nets for core in CORES]
    (HOME / "rows.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(markdown(COLUMNS, rows))
    print("\nProduced and read back, not run here: their kernels are CMSIS-NN's on a board.")
    tests = subprocess.run([str(python), "-m", "pytest", "-q", TESTS], check=False)
    sys.exit(tests.returncode or any(str(line[-1]).startswith("failed") for line in rows))


if __name__ == "__main__":
    main()
