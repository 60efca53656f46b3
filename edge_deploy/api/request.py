"""What a conversion is asked for, in one value that can be looked at before anything slow happens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from converters.contracts import CaptureRequest
from converters.delegates import DEFAULT, check_delegate
from edge_deploy.core import registry
from edge_deploy.core.errors import BadInput
from edge_deploy.core.passes import chosen_passes
from edge_deploy.core.quant_spec import QuantSpec, RangeMethod, spec_for_recipe
from edge_deploy.core.recipe_file import read_recipe
from edge_deploy.core.tensor import DType, TensorInfo
from edge_deploy.zoo.description import find_description

__all__ = [
    "ConvertRequest",
    "capture_request",
    "folder_name",
    "one_source",
    "parse_input",
    "parse_shape",
    "convert_request",
    "quant_options",
]

FALLBACK_BITS = {"int8": 8, "float32": 32}
CHOICES = {
    "--fallback": (None, *FALLBACK_BITS),
    "--io": ("float", "int8"),
    "--table-scale": ("row", "table"),
    "--for": ("phone", "mcu"),
    "--ranges": get_args(RangeMethod),
}
DTYPES: dict[str, DType] = {
    "float32": "float32",
    "int64": "int64",
    "int32": "int32",
    "float": "float32",
    "int": "int64",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertRequest:
    """A whole conversion: one source, several target x precision pairs, their evidence.

    Attributes:
        max_drop: Largest loss of the metric (accuracy or AUC) that is accepted, e.g. 0.01; None asks for nothing.
        strict: Judge `max_drop` by the lower end of the 95 % interval instead of the point value.
        delegate: What runs ExecuTorch's operators: XNNPACK, or Vulkan, whose files are not run here.
    """

    capture: CaptureRequest
    targets: tuple[str, ...]
    specs: tuple[QuantSpec, ...]
    out: Path
    calibrate: Path | None = None
    evaluate: Path | None = None
    calibrate_limit: int | None = None
    evaluate_limit: int | None = None
    features: Path | None = None
    labels: tuple[str, ...] = ()
    max_drop: float | None = None
    strict: bool = False
    force: bool = False
    delegate: str = DEFAULT

    def __post_init__(self) -> None:
        problems = []
        if not self.targets:
            problems.append("--to: name at least one target.")
        if not self.specs:
            problems.append("--precision: name at least one precision.")
        if self.max_drop is not None and not 0 <= self.max_drop < 1:
            problems.append(f"--max-drop {self.max_drop}: must lie in [0, 1).")
        if self.max_drop is not None and self.evaluate is None:
            problems.append("--max-drop: needs labelled data to judge by; pass --eval.")
        if self.strict and self.max_drop is None:
            problems.append("--strict: judges --max-drop, which is not given.")
        for name, path in (("--calibrate", self.calibrate), ("--eval", self.evaluate), ("--features", self.features)):
            if path is not None and not path.exists():
                problems.append(f"{name} {path}: no such file.")
        if problems:
            raise BadInput(*problems)

    @property
    def pairs(self) -> tuple[tuple[str, QuantSpec], ...]:
        """Every target with every precision, target by target."""
        return tuple((target, spec) for target in self.targets for spec in self.specs)


def folder_name(target: str, spec: QuantSpec) -> str:
    """Name of the folder of one pair, e.g. tflite-int8, tflite-int8-mcu, or tflite-mixed for a recipe mixed.toml."""
    return f"{target}-{spec.name}" + ("-mcu" if spec.for_device == "mcu" else "")


def convert_request(
    source: str,
    *,
    to: Sequence[str],
    precision: Sequence[str] = (),
    recipe: Sequence[str | Path] = (),
    out: str | Path,
    calibrate: str | Path | None = None,
    evaluate: str | Path | None = None,
    weights: str | Path | None = None,
    inputs: Sequence[str | TensorInfo] = (),
    shapes: Sequence[str] = (),
    batches: Sequence[int] = (1,),
    fallback: str | None = None,
    io: str = "float",
    table_scale: str = "row",
    for_device: str = "phone",
    plain_pte: bool = False,
    ranges: str = "percentile",
    percentile: float = 99.999,
    with_passes: Sequence[str] = (),
    without_passes: Sequence[str] = (),
    features: str | Path | None = None,
    labels: str | Path | None = None,
    max_drop: float | None = None,
    strict: bool = False,
    calibrate_limit: int | None = None,
    evaluate_limit: int | None = None,
    search_path: Sequence[str] = (),
    force: bool = False,
    delegate: str = DEFAULT,
) -> ConvertRequest:
    """Check the options of a conversion against each other and against the file system; touches no model.

    Args:
        recipe: Files with rules for single layers, see `edge_deploy.core.recipe_file`; each is one more precision.
        with_passes: Of `edge_deploy.core.passes.PASSES`, beside those that are tried anyway.
        without_passes: That are not tried; "all" for none but `with_passes`.

    Raises:
        BadInput: All problems at once.
        Unsupported: A delegate that nothing can be written for.
    """
    problems: list[str] = []
    options: dict[str, object] | None = None
    try:
        options = quant_options(
            fallback=fallback,
            io=io,
            table_scale=table_scale,
            for_device=for_device,
            plain_pte=plain_pte,
            ranges=ranges,
            percentile=percentile,
            with_passes=with_passes,
            without_passes=without_passes,
        )
    except BadInput as error:
        problems += error.problems
    for target in dict.fromkeys(to):
        try:
            registry.load("converters.targets", target)
        except BadInput as error:
            problems += [f"--to: {problem}" for problem in error.problems]
    if options is None:
        raise BadInput(*problems)
    specs, wrong = _specs(precision, recipe, options)
    problems += wrong
    if plain_pte and ("executorch" not in to or not any(_asks_for_int4(spec) for spec in specs)):
        problems.append(
            "--plain-pte: is about INT4 on ExecuTorch; add --to executorch --precision int4, or leave it out."
        )
    declared = []
    for text in inputs:
        try:
            declared.append(text if isinstance(text, TensorInfo) else parse_input(text))
        except BadInput as error:
            problems += error.problems
    if problems:
        raise BadInput(*problems)
    check_delegate(delegate, targets=tuple(dict.fromkeys(to)), recipes=tuple(spec.recipe for spec in specs))
    capture = CaptureRequest(
        source=str(source),
        weights=Path(weights) if weights else None,
        inputs=tuple(declared),
        batches=tuple(dict.fromkeys(batches)),
        shapes=dict(parse_shape(text) for text in shapes) or None,
        search_path=tuple(search_path),
    )
    return ConvertRequest(
        capture=capture,
        targets=tuple(dict.fromkeys(to)),
        specs=tuple(specs),
        out=Path(out),
        calibrate=find_description(calibrate) if calibrate else None,
        evaluate=find_description(evaluate) if evaluate else None,
        calibrate_limit=calibrate_limit,
        evaluate_limit=evaluate_limit,
        features=Path(features) if features else None,
        labels=_read_labels(Path(labels)) if labels else (),
        max_drop=max_drop,
        strict=strict,
        force=force,
        delegate=delegate,
    )


def quant_options(
    *,
    fallback: str | None = None,
    io: str = "float",
    table_scale: str = "row",
    for_device: str = "phone",
    plain_pte: bool = False,
    ranges: str = "percentile",
    percentile: float = 99.999,
    with_passes: Sequence[str] = (),
    without_passes: Sequence[str] = (),
) -> dict[str, object]:
    """Fields of a `QuantSpec` from options as the command line has them.

    Raises:
        BadInput: All problems at once.
    """
    chosen = {"--fallback": fallback, "--io": io, "--table-scale": table_scale, "--for": for_device, "--ranges": ranges}
    problems = [
        f"{option} {value}: must be one of {', '.join(name for name in CHOICES[option] if name)}."
        for option, value in chosen.items()
        if value not in CHOICES[option]
    ]
    passes: tuple[str, ...] = ()
    try:
        passes = chosen_passes(with_passes=with_passes, without_passes=without_passes)
    except BadInput as error:
        problems += error.problems
    if problems:
        raise BadInput(*problems)
    return {
        "fallback_bits": FALLBACK_BITS[fallback] if fallback else None,
        "io": io,
        "table_scale": table_scale,
        "for_device": for_device,
        "plain_pte": plain_pte,
        "range_method": ranges,
        "percentile": percentile,
        "passes": passes,
    }


def _specs(
    precision: Sequence[str], recipe: Sequence[str | Path], options: dict[str, object]
) -> tuple[tuple[QuantSpec, ...], list[str]]:
    """What precisions and recipe files ask for, and all that is wrong with them."""
    found: list[QuantSpec] = []
    problems: list[str] = []
    for name in dict.fromkeys(precision):
        try:
            found.append(spec_for_recipe(name, **options))
        except BadInput as error:
            problems += error.problems
    for path in dict.fromkeys(Path(each) for each in recipe):
        try:
            spec = read_recipe(path, **options)
        except BadInput as error:
            problems += [f"--recipe {problem}" for problem in error.problems]
            continue
        if any(spec.name == other.name for other in found):
            problems.append(f"--recipe {path}: another precision is called {spec.name} too; rename the file.")
        found.append(spec)
    return tuple(found), problems


def _asks_for_int4(spec: QuantSpec) -> bool:
    return 4 in (spec.weight_bits, *(rule.weight_bits for rule in spec.rules))


def parse_input(text: str) -> TensorInfo:
    """A declared input, NAME:SHAPE[:DTYPE], e.g. "image:1x3x32x32" or "ids:1,26:int64"; a first size of -1 is dynamic.

    Raises:
        BadInput: Not of that form.
    """
    name, _, rest = text.partition(":")
    shape_text, _, dtype = rest.partition(":")
    form = "must be NAME:SHAPE[:DTYPE], e.g. image:1,3,32,32 or ids:1,26:int64."
    try:
        shape = tuple(int(size) for size in shape_text.replace("x", ",").split(","))
    except ValueError as error:
        raise BadInput(f"--input {text}: {shape_text!r} is not a shape; {form}") from error
    if not name or any(size == 0 or size < -1 for size in shape):
        raise BadInput(f"--input {text}: {form}")
    if dtype and dtype not in DTYPES:
        raise BadInput(f"--input {text}: type {dtype!r}: must be one of {', '.join(DTYPES)}.")
    kind = DTYPES[dtype or "float32"]
    image = len(shape) == 4 and kind == "float32" and shape[1] in (1, 3, 4)
    return TensorInfo(name=name, shape=shape, dtype=kind, layout="NCHW" if image else None)


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Sizes for the dynamic dimensions of one input, NAME:SHAPE.

    Raises:
        BadInput: Not of that form, or a size is below 1.
    """
    name, _, rest = text.partition(":")
    try:
        shape = tuple(int(size) for size in rest.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if not name or not shape or min(shape) < 1:
        raise BadInput(f"--shape {text}: must be NAME:SHAPE with sizes of at least 1, e.g. image:1,224,224,3.")
    return name, shape


def _read_labels(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--labels {path}: cannot be read ({error}).") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise BadInput(f"--labels {path}: is empty; it must hold the name of each class, one a line.")
    return names


def one_source(model: str | None, source: str | None) -> str:
    """The one model that the command line names.

    Raises:
        BadInput: None, or two.
    """
    if (model is None) == (source is None):
        raise BadInput("name one model: a file (resnet8.h5), or --source package.module:factory.")
    return model if model is not None else str(source)


def capture_request(
    model: str | None, source: str | None, *, weights: Path | None, inputs: Sequence[str], shapes: Sequence[str]
) -> CaptureRequest:
    """The one model that the command line names, with its inputs and sizes as they are written there.

    Raises:
        BadInput: No model, two, or an input or shape that cannot be read.
    """
    return CaptureRequest(
        source=one_source(model, source),
        weights=weights,
        inputs=tuple(parse_input(text) for text in inputs),
        shapes=dict(parse_shape(text) for text in shapes) or None,
    )
