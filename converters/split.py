"""Cut an artifact in two: write runnable halves for chosen cuts, each an artifact, and compare them with the whole."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from converters.splitting.check import Checked, check_halves, random_feeds, save_feeds
from converters.splitting.choose import cut_by_id, prefix_cuts
from converters.splitting.contracts import Parent, WrittenCut
from converters.splitting.describe import half_artifact, whole_artifact
from converters.splitting.parent import open_parent
from converters.verify import check_outcomes
from edge_deploy.core import registry
from edge_deploy.core.artifact import MANIFEST, Artifact, Comparison, FileEntry, Verification
from edge_deploy.core.cut import ALL_CLOUD, ALL_EDGE, Cut, make_cut
from edge_deploy.core.early_order import outputs_early
from edge_deploy.core.errors import BadInput, Unsupported, VerificationFailed
from edge_deploy.core.layer_graph import LayerGraph
from edge_deploy.core.legality import illegal_because
from edge_deploy.core.publish import published_folder
from edge_deploy.core.serde import write_json

__all__ = ["Refused", "Split", "SplitCut", "choose_cuts", "is_quantized", "open_parent", "split"]

RANDOM_SAMPLES = 8
Feeds = Callable[[Parent], dict[str, list[dict[str, object]]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitCut:
    """The halves of one cut.

    Attributes:
        head: Folder of the edge half; None where the edge computes nothing.
        tail: Folder of the cloud half; None where the cloud computes nothing.
        is_quantized: All that crosses upwards are integers.
        bit_identical: Head then tail gave the whole's outputs bit for bit; None where it was not tried.
        comparisons: Against the whole, one for each signature.
        up_bytes: Bytes that cross upwards; None where a size is dynamic.
    """

    cut: Cut
    head: Path | None
    tail: Path | None
    is_quantized: bool
    bit_identical: bool | None = None
    comparisons: tuple[Comparison, ...] = ()
    up_bytes: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A cut that cannot be had, and why."""

    cut: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """What `split` wrote; `refused` holds the prefixes that `--all` had to leave out."""

    folder: Path
    cuts: tuple[SplitCut, ...]
    refused: tuple[Refused, ...] = ()


def is_quantized(cut: Cut) -> bool:
    """Whether everything that crosses upwards is integers: then both halves must compute the whole bit for bit."""
    return all(not info.dtype.startswith("float") for info in cut.up)


def choose_cuts(
    parent: Parent,
    *,
    ids: Sequence[str] = (),
    edge_layers: Sequence[str] | None = None,
    every: bool = False,
) -> tuple[tuple[Cut, ...], tuple[Refused, ...]]:
    """The cuts that are meant, in the order given, and with `every` the prefixes that are not legal.

    Raises:
        BadInput: No such cut, or nothing is named.
        Unsupported: A cut that was named is not legal; every reason is told.
    """
    graph = outputs_early(parent.artifact.graph)  # as cuts are listed
    named = [] if edge_layers is None else [make_cut(graph, edge_layers)]
    named += [cut_by_id(graph, wanted, known=named) for wanted in ids]
    if not named and not every:
        raise BadInput("split: name a cut with --cut ID (`edge-deploy cuts` lists them), --edge-layers, or pass --all.")
    problems = [f"cut {cut.id}: {reason}." for cut in named for reason in illegal_because(graph, cut)]
    if problems:
        raise Unsupported(*problems)
    refused: list[Refused] = []
    chosen = {cut.id: cut for cut in named}
    for cut in prefix_cuts(graph) if every else ():
        reasons = (*illegal_because(graph, cut), *_same_as_a_whole(graph, cut))
        if reasons:
            refused.append(Refused(cut=cut.id, reasons=reasons))
        else:
            chosen.setdefault(cut.id, cut)
    return tuple(chosen.values()), tuple(refused)


def _same_as_a_whole(graph: LayerGraph, cut: Cut) -> tuple[str, ...]:
    """Layers that are made of weights alone are no half: such a cut is all-cloud or all-edge once more."""
    moving = {layer.name for layer in graph.layers} - graph.constant_layers
    edge = frozenset(cut.edge_layers)
    if edge and not edge & moving:
        return ("the edge would compute nothing that depends on the inputs: the same as all-cloud",)
    if moving <= edge and len(edge) < len(graph.layers):
        return ("the cloud would compute nothing that depends on the inputs: the same as all-edge",)
    return ()


def split(
    parent: Parent,
    cuts: Sequence[Cut],
    out: Path,
    *,
    refused: Sequence[Refused] = (),
    check: bool = True,
    feeds: Feeds | None = None,
    force: bool = False,
    progress: Callable[[str], None] = lambda stage: None,
) -> Split:
    """Write `out/<cut id>/head` and `out/<cut id>/tail`, each an artifact; the folder appears in one rename.

    Args:
        cuts: Legal ones, see `choose_cuts`.
        feeds: More inputs to compare on, by signature, besides seeded random ones.

    Raises:
        Unsupported: A half cannot be had.
        ToolchainError: Lowering or running a half failed.
        VerificationFailed: A layer has other weights than in the whole, or head then tail differ from it although
            only integers cross; nothing is kept.
    """
    inner = [cut for cut in cuts if cut.id not in (ALL_EDGE, ALL_CLOUD)]
    with published_folder(out, force=force) as partial:
        progress(f"cut {parent.artifact.name}")
        for cut in cuts:
            (partial / cut.id).mkdir()
        splitter = registry.load("converters.splitting.formats", parent.artifact.format)
        written: dict[str, WrittenCut] = {}
        if inner:
            made = splitter.write_halves(parent, inner, [partial / cut.id for cut in inner])
            written = {each.cut.id: each for each in made}
        for each in written.values():
            for half in each.halves:
                folder = partial / each.cut.id / half.side
                artifact = half_artifact(parent, each, half)
                check_outcomes(artifact.outcomes, half.facts)  # 4-bit weights stayed 4-bit, and so on
                extra = _feature_files(parent, folder) if half.side == "head" else ()
                write_json(replace(artifact, files=(*artifact.files, *extra)), folder / MANIFEST)
        for cut in cuts:
            if cut.id not in written:
                _copy_whole(parent, cut, partial / cut.id)
        checked: dict[str, Checked] = {}
        if check and inner:
            progress("compare with the whole")
            checked = _check(parent, [partial / cut.id for cut in inner], feeds)
            _refuse_differences(inner, checked)
        results = tuple(_result(parent, cut, partial, out, checked.get(cut.id)) for cut in cuts)
    return Split(folder=out, cuts=results, refused=tuple(refused))


def _copy_whole(parent: Parent, cut: Cut, folder: Path) -> None:
    """All-edge and all-cloud: the other half is empty, this one is the same model."""
    target = folder / ("head" if cut.id == ALL_EDGE else "tail")
    target.mkdir()
    for entry in parent.artifact.files:
        shutil.copyfile(parent.folder / entry.path, target / entry.path)
    write_json(whole_artifact(parent, cut), target / MANIFEST)


def _feature_files(parent: Parent, folder: Path) -> tuple[FileEntry, ...]:
    """The head takes raw inputs, so that what describes them goes along."""
    entries = tuple(entry for entry in parent.artifact.files if entry.role in ("features", "vocabulary"))
    for entry in entries:
        (folder / entry.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(parent.folder / entry.path, folder / entry.path)
    return entries


def _check(parent: Parent, folders: Sequence[Path], feeds: Feeds | None) -> dict[str, Checked]:
    signatures = parent.artifact.signatures
    inputs = random_feeds(signatures, RANDOM_SAMPLES)
    for name, samples in (feeds(parent) if feeds is not None else {}).items():
        inputs[name] += samples
    with tempfile.TemporaryDirectory(prefix="edge-deploy-") as scratch:
        path = Path(scratch) / "feeds.npz"
        save_feeds(inputs, path)
        found = check_halves(parent.model if parent.is_bare else parent.folder, folders, path)
    return {each.cut: each for each in found}


def _refuse_differences(cuts: Sequence[Cut], checked: dict[str, Checked]) -> None:
    problems = []
    for cut in cuts:
        if not checked[cut.id].identical and is_quantized(cut):
            worst = max(each.max_error for each in checked[cut.id].comparisons)
            problems.append(
                f"cut {cut.id}: only integers cross, and head then tail differ from the whole by up to {worst:.4g}: "
                "must be bit-identical; take another cut."
            )
    if problems:
        raise VerificationFailed(*problems)


def _result(parent: Parent, cut: Cut, partial: Path, out: Path, checked: Checked | None) -> SplitCut:
    """Record the comparison in the manifests of both halves."""
    from runtimes.folder import read_artifact

    sides = [side for side in ("head", "tail") if (partial / cut.id / side).is_dir()]
    for side in sides if checked is not None else ():
        folder = partial / cut.id / side
        write_json(_recorded(read_artifact(folder), checked), folder / MANIFEST)
    empty = [side for side in ("head", "tail") if side not in sides]
    note = f"the {empty[0]} is empty" if empty else ""
    if cut.id in (ALL_EDGE, ALL_CLOUD):
        note += f": the {sides[0]} is {parent.artifact.name} as it is"
    return SplitCut(
        cut=cut,
        head=out / cut.id / "head" if "head" in sides else None,
        tail=out / cut.id / "tail" if "tail" in sides else None,
        is_quantized=is_quantized(cut),
        bit_identical=checked.identical if checked is not None else None,
        comparisons=checked.comparisons if checked is not None else (),
        up_bytes=None if any(-1 in info.shape for info in cut.up) else cut.up_bytes,
        note=note,
    )


def _recorded(artifact: Artifact, checked: Checked | None) -> Artifact:
    assert checked is not None and artifact.split is not None
    samples = sum(each.samples for each in checked.comparisons)
    worst = max(each.max_error for each in checked.comparisons)
    how = "bit-identical" if checked.identical else f"they differ by up to {worst:.4g}: the cut crosses float values"
    verification = Verification(
        comparisons=checked.comparisons,
        verdict="passed" if checked.identical else "not resolved",
        notes=(f"head then tail against the whole, {samples} samples: {how}",),
    )
    return replace(artifact, verification=verification, split=replace(artifact.split, bit_identical=checked.identical))
