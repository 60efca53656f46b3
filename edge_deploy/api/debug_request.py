"""What the debugger is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from converters.contracts import CaptureRequest
from edge_deploy.core.errors import BadInput

__all__ = ["DebugRequest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DebugRequest:
    """One artifact to look into.

    Attributes:
        folder: An artifact in TFLite or ExecuTorch.
        source: The float model it came from.
        data: Real samples; with labels, what-ifs tell accuracy or AUC too.
        calibrate: Samples that it was calibrated with; needed to convert anything again.
        limit: Look at that many samples of `data` at most; None looks at all.
        prove: Layers that are converted again, all at once, each at the precision that is expected to help.
        prove_best: Carry out the remedy that is expected to help most.
        out: Folder for page, JSON, recipe and proven artifacts; None writes nothing.
        force: Replace `out`, if it was written by the debugger.
    """

    folder: Path
    source: CaptureRequest
    data: Path
    calibrate: Path | None = None
    calibrate_limit: int | None = None
    limit: int | None = 64
    prove: tuple[str, ...] = ()
    prove_best: bool = False
    out: Path | None = None
    force: bool = False

    def __post_init__(self) -> None:
        problems = [
            f"{option} {path}: no such file."
            for option, path in (("--data", self.data), ("--calibrate", self.calibrate))
            if path is not None and not path.exists()
        ]
        if self.limit is not None and self.limit < 2:
            problems.append(f"--limit {self.limit}: must be at least 2.")
        if problems:
            raise BadInput(*problems)
