"""The artifact: the files of one conversion, what every layer became, and how the result compares with its source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from edge_deploy.core.early_exit import EarlyExit
from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.passes import PassRecord
from edge_deploy.core.quant_spec import QuantSpec
from edge_deploy.core.tensor import TensorInfo

__all__ = [
    "Artifact",
    "Comparison",
    "FileEntry",
    "Format",
    "LayerFacts",
    "LayerOutcome",
    "MANIFEST",
    "PairedDifference",
    "Signature",
    "SplitOrigin",
    "Verification",
]

MANIFEST = "manifest.json"
Format: TypeAlias = Literal["tflite", "executorch", "c"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file of the artifact, relative to its folder."""

    path: str
    role: Literal["model", "data", "quantized-program", "features", "vocabulary", "other"]
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One way to call the artifact: a batch size with its inputs and outputs, in call order."""

    name: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """What a file says of one layer that has weights, or of one operator without, read back from its bytes.

    Attributes:
        layer: The layer's name: stable across precisions of the same source where the format allows.
        op: As the file names it, e.g. CONV_2D, or "Linear (XNNPACK)".
        weight_dtype: Storage type of the weights; None when the layer has none.
        weight_bits: Bits per weight actually stored (bytes * 8 / count); 0 without weights.
        granularity: How many scales the weights have: "none", "per-tensor", "per-channel", "per-row", "blockwise".
        activation_dtype: Type of the first output.
        weight_compute: What multiplies the weights, where that is not what is stored: "float32" for weights that are
            widened first, "dynamic" for ones whose inputs are quantized by each inference; else empty.
        runs_on: The kernel library that will run it, e.g. "XNNPACK", "builtin", "portable"; "unknown" when
            the file cannot tell.
    """

    layer: str
    op: str
    weight_dtype: str | None = None
    weight_bits: float = 0.0
    weight_count: int = 0
    weight_bytes: int = 0
    granularity: Literal["none", "per-tensor", "per-channel", "per-row", "blockwise"] = "none"
    activation_dtype: str = "float32"
    weight_compute: Literal["", "float32", "dynamic"] = ""
    runs_on: str = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerOutcome:
    """What was asked of a layer with weights, what it became, and why they differ where they do.

    Attributes:
        weight_bytes: Of the weights at `weight_bits` alone.
        beside_bytes: Of what a table needs beside them: scales of its rows, rows that stayed wide and their directory.
    """

    layer: str
    op: str
    asked: str
    got: str
    reason: str = ""
    weight_bits: float = 0.0
    weight_bytes: int = 0
    runs_on: str = "unknown"
    beside_bytes: int = 0

    @property
    def is_as_asked(self) -> bool:
        """The width is the one asked for; both may go on with details, e.g. "int4, one float16 scale per row"."""
        return _width(self.got) == _width(self.asked)


def _width(text: str) -> str:
    return text.partition(" ")[0].rstrip(",;:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Outputs of the artifact against the float source on the same inputs.

    Attributes:
        kernels: The runtime and kernel set that ran the artifact, e.g. "ai-edge-litert 2.3.0 XNNPACK".
        snr_db: 10 log10(sum reference^2 / sum error^2) over all outputs; 999 stands for identical.
        top1_agreement: Share of samples with the same argmax; None for a single output.
    """

    kernels: str
    threads: int
    samples: int
    snr_db: float
    cosine: float
    max_error: float
    finite: bool
    top1_agreement: float | None = None
    signature: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """A metric of float source and artifact on the same labelled samples, and the 95 % interval of the difference.

    Attributes:
        difference: artifact - source.
    """

    metric: Literal["accuracy", "auc", "log_loss"]
    samples: int
    source: float
    artifact: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The evidence that came with the conversion."""

    comparisons: tuple[Comparison, ...] = ()
    differences: tuple[PairedDifference, ...] = ()
    verdict: Literal["passed", "not resolved", "not asked"] = "not asked"
    evaluation_digest: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitOrigin:
    """Where a half of a cut comes from.

    Attributes:
        parent: Name of the artifact, or of the file, that was cut.
        parent_digest: sha256 of its model file.
        cut: Id of the cut.
        half: "head" runs on the edge, "tail" in the cloud; "whole" where the other half is empty.
        up: Names of the head's outputs, or of the model's inputs, that the tail takes, in its call order.
        bit_identical: Head then tail gave the whole's outputs bit for bit; None where that was not tried.
    """

    parent: str
    parent_digest: str
    cut: str
    half: Literal["head", "tail", "whole"]
    up: tuple[str, ...] = ()
    bit_identical: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One converted model: the content of `manifest.json`.

    Attributes:
        source_inputs: Inputs of the float model; calibration and evaluation data come in these terms.
        signatures: At least one; the first is the default.
        calibration_digest: sha256 of the calibration samples; empty when none were used.
        toolchain: Package name to version.
        minimum_runtime: Oldest runtime known to compute it rightly, e.g. "ai-edge-litert 1.4".
        split: Where it comes from when it is a half of another artifact.
        passes: What became of each pass that could have been applied.
        exits: Outputs that may answer for the last one, in the order in which they are made; none until fitted.
    """

    name: str
    format: Format
    spec: QuantSpec
    source: str
    kind: Literal["cnn", "recommender", "generic"]
    files: tuple[FileEntry, ...]
    source_inputs: tuple[TensorInfo, ...]
    source_outputs: tuple[TensorInfo, ...]
    signatures: tuple[Signature, ...]
    graph: LayerGraph
    outcomes: tuple[LayerOutcome, ...]
    toolchain: dict[str, str]
    calibration_digest: str = ""
    calibration_samples: int = 0
    minimum_runtime: str = ""
    warnings: tuple[str, ...] = ()
    verification: Verification = field(default_factory=Verification)
    split: SplitOrigin | None = None
    passes: tuple[PassRecord, ...] = ()
    exits: tuple[EarlyExit, ...] = ()

    def __post_init__(self) -> None:
        if not self.signatures:
            raise BadInput(f"artifact {self.name}: no signature.")
        if sum(entry.role == "model" for entry in self.files) != 1:
            raise BadInput(f"artifact {self.name}: must have exactly one model file.")

    @property
    def model_file(self) -> FileEntry:
        """The `.tflite` or `.pte` file, or the `model.c` of a C project."""
        return next(entry for entry in self.files if entry.role == "model")

    @property
    def device_bytes(self) -> int:
        """Bytes that a device needs: the model and its data files, without the program kept for cutting.

        Of a C project its weights, because its text is no flash; constants beside them and code are linked only later.
        """
        if self.format == "c":
            return sum(outcome.weight_bytes for outcome in self.outcomes)
        return sum(entry.bytes for entry in self.files if entry.role in ("model", "data"))
