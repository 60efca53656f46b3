"""What a source hands to a target, and what a target hands back: the two joints of the conversion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from edge_deploy.core.artifact import FileEntry, LayerOutcome, Signature
from edge_deploy.core.errors import BadInput
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.passes import PassRecord
from edge_deploy.core.quant_spec import QuantSpec
from edge_deploy.core.tensor import TensorInfo

__all__ = ["CaptureRequest", "Captured", "LowerRequest", "Lowered", "Source", "Target"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureRequest:
    """A trained model as the user names it.

    Attributes:
        source: A file, or "package.module:factory" for a PyTorch module.
        weights: Checkpoint of a factory's module, loaded with weights_only=True.
        inputs: Declared inputs (name, shape with the batch first, dtype); needed for factories, optional for files.
        batches: Batch sizes the artifact must serve, the default first.
        shapes: Sizes of dynamic dimensions, by input name.
        search_path: Folders the factory's module is imported from, beside the usual ones.
    """

    source: str
    weights: Path | None = None
    inputs: tuple[TensorInfo, ...] = ()
    batches: tuple[int, ...] = (1,)
    shapes: dict[str, tuple[int, ...]] | None = None
    search_path: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.batches or any(batch < 1 for batch in self.batches):
            raise BadInput(f"--batch {self.batches}: must be one or more sizes of at least 1.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """A float model in a form that needs its framework no more; files live in `folder`.

    Attributes:
        framework: Decides which target route is taken: "torch" has `program`, "keras" has `float_tflite`, whatever
            source wrote it.
        source: The module in `converters.sources` that captured it and can run it in float; `capture` fills it in.
        inputs: In call order, batch first; a dynamic batch is -1 (the sizes asked for stand in `batches`).
        program: A torch.export archive (`.pt2`), EmbeddingBags already rewritten, in evaluation mode.
        float_tflite: Float TFLite file of the stock converter, one signature per batch size.
        recommender: Folder of a recognised recommender (see `converters.recommender.model`), None otherwise.
        state: Anything the source needs to run the float model again, e.g. the path of the checked `.h5`.
        is_streamed: The recommender's tables stay in the user's files and are never held in memory as a whole.
    """

    name: str
    framework: Literal["torch", "keras"]
    kind: Literal["cnn", "recommender", "generic"]
    folder: Path
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    batches: tuple[int, ...] = (1,)
    program: Path | None = None
    float_tflite: Path | None = None
    recommender: Path | None = None
    state: Path | None = None
    notes: tuple[str, ...] = ()
    source: str = ""
    is_streamed: bool = False


class Source(Protocol):
    """A module in `converters.sources`: recognises a kind of model file, captures it, runs it in float."""

    def accepts(self, request: CaptureRequest) -> bool:
        """Whether this source is the one for `request.source`; cheap, imports no heavy library."""

    def capture(self, request: CaptureRequest, folder: Path) -> Captured:
        """Turn the model into a `Captured` in `folder`. Runs in a child process."""

    def run_float(self, captured: Captured, feeds: Path, answers: Path) -> None:
        """Run the float model of the source's own framework.

        Args:
            feeds: npz with one array per input, all samples stacked on axis 0.
            answers: Where to write an npz with one array per output, in the same order of samples.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class LowerRequest:
    """One captured model at one precision for one target.

    Attributes:
        calibration: npz with one array per source input, samples stacked on axis 0; None where none is needed.
        folder: Empty folder that receives the artifact's files.
        labels: npy of the calibration samples' labels (float64, NaN for none), by which passes are judged too.
        resume: Folder that outlives an ended process, where large files grow; None where none is worth it.
        packs_tables: INT4 rows are wanted as INT8 values of 4 bits; who asks packs them two a byte.
    """

    captured: Captured
    spec: QuantSpec
    folder: Path
    calibration: Path | None = None
    labels: Path | None = None
    resume: Path | None = None
    packs_tables: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowered:
    """What a target wrote and what it claims of it; claims are checked against the bytes afterwards.

    Attributes:
        asked: Layers with weights and what was asked of each; `got` is what the target believes it wrote.
        passes: What became of each pass; filled in by `converters.lower`.
    """

    files: tuple[FileEntry, ...]
    signatures: tuple[Signature, ...]
    graph: LayerGraph
    outcomes: tuple[LayerOutcome, ...]
    toolchain: dict[str, str]
    minimum_runtime: str = ""
    warnings: tuple[str, ...] = ()
    passes: tuple[PassRecord, ...] = ()


class Target(Protocol):
    """A module in `converters.targets`: writes one format."""

    FORMAT: str

    def lower(self, request: LowerRequest) -> Lowered:
        """Write the files of `request` into its folder. Runs in a child process.

        Raises:
            Unsupported: Layers that cannot become what was asked, each by name, before anything slow is done.
        """
