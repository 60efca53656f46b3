"""Points of a search: converted, evaluated, and kept by name, so that a search that ended early goes on."""

from __future__ import annotations

import glob
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from converters.debugger.diagnose import Opened
from converters.search.finding import UNIFORM, SearchPoint
from edge_deploy.api.convert import convert
from edge_deploy.api.request import ConvertRequest, folder_name
from edge_deploy.api.search_data import Part
from edge_deploy.api.search_request import SearchRequest
from edge_deploy.core.artifact import Artifact
from edge_deploy.core.errors import EdgeDeployError
from edge_deploy.core.quant_spec import LayerRule, QuantSpec, spec_for_recipe
from edge_deploy.core.serde import read_json, write_json
from runtimes.folder import check_files, read_artifact

__all__ = ["Points", "Wanted", "mixed_spec", "uniform_spec"]

PRECISIONS = {4: "int4", 8: "int8", 16: "float16", 32: "float32"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A point to convert."""

    name: str
    spec: QuantSpec
    bits: Mapping[str, int]
    expected_noise: float | None
    cost: float


def uniform_spec(base: QuantSpec, bits: int) -> QuantSpec:
    """The base at one width; layers that cannot have 4 bits get 8."""
    usual = spec_for_recipe(PRECISIONS[bits])
    mlp = bits if usual.mlp_bits != bits and base.for_device == "phone" else usual.mlp_bits
    return replace(
        base,
        recipe=usual.recipe,
        label=f"{UNIFORM}{PRECISIONS[bits]}",
        weight_bits=usual.weight_bits,
        mlp_bits=mlp,
        fallback_bits=8 if bits == 4 else base.fallback_bits,
        rules=(),
    )


def mixed_spec(base: QuantSpec, bits: Mapping[str, int], label: str) -> QuantSpec:
    """The base, INT8, with a rule for each layer of another width."""
    rules = tuple(
        LayerRule(pattern=glob.escape(layer), weight_bits=width) for layer, width in bits.items() if width != 8
    )
    return replace(base, label=label, rules=(*base.rules, *rules))


class Points:
    """The folder of points."""

    def __init__(self, request: SearchRequest, part: Part, progress: Callable[[str], None]) -> None:
        self._request, self._part, self._progress = request, part, progress
        self.folder = request.out / "points"
        self.folder.mkdir(parents=True, exist_ok=True)

    def known(self, name: str) -> SearchPoint | None:
        """A point that was evaluated before."""
        path = self.folder / f"{name}.json"
        return read_json(SearchPoint, path) if path.is_file() else None

    def artifact(self, name: str) -> Artifact:
        """The artifact of a point that has one."""
        artifact = read_artifact(self.folder / name)
        check_files(self.folder / name, artifact)
        return artifact

    def opened(self, name: str) -> Opened:
        """Its files, to look at layers."""
        artifact = self.artifact(name)
        return Opened(
            name=artifact.name,
            target=artifact.format,
            folder=(self.folder / name).resolve(),
            spec=artifact.spec,
            outcomes=artifact.outcomes,
        )

    def evaluated(self, wanted: Sequence[Wanted]) -> list[SearchPoint]:
        """Convert and evaluate what is not there yet; one that cannot be converted says why."""
        missing = [each for each in wanted if self.known(each.name) is None]
        if missing:
            self._progress(f"convert {', '.join(each.name for each in missing)}")
            try:
                self._convert(missing)
            except EdgeDeployError:
                for each in missing:  # one of them; the others shall not suffer
                    self._convert_alone(each)
        found = [self.known(each.name) for each in wanted]
        return [point for point in found if point is not None]

    def _convert_alone(self, wanted: Wanted) -> None:
        try:
            self._convert([wanted])
        except EdgeDeployError as error:
            point = SearchPoint(
                name=wanted.name,
                bits=dict(wanted.bits),
                expected_noise=wanted.expected_noise,
                cost=wanted.cost,
                failure=str(error),
            )
            write_json(point, self.folder / f"{wanted.name}.json")

    def _convert(self, wanted: Sequence[Wanted]) -> None:
        request = self._request
        with tempfile.TemporaryDirectory(prefix=".round-", dir=self.folder) as scratch:
            made = Path(scratch, "made")
            convert(
                ConvertRequest(
                    capture=request.capture,
                    targets=(request.target,),
                    specs=tuple(each.spec for each in wanted),
                    out=made,
                    calibrate=request.calibrate,
                    calibrate_limit=request.calibrate_limit,
                    evaluate=self._part.feeds,
                )
            )
            for each in wanted:
                place = self.folder / each.name
                if place.exists():
                    shutil.rmtree(place)
                (made / folder_name(request.target, each.spec)).rename(place)
                write_json(_point(each, read_artifact(place)), self.folder / f"{each.name}.json")


def _point(wanted: Wanted, artifact: Artifact) -> SearchPoint:
    evidence = artifact.verification
    return SearchPoint(
        name=wanted.name,
        bits=dict(wanted.bits),
        expected_noise=wanted.expected_noise,
        cost=wanted.cost,
        device_bytes=artifact.device_bytes,
        snr_db=evidence.comparisons[0].snr_db,
        difference=evidence.differences[0] if evidence.differences else None,
    )
