"""Thresholds of exits: fitted on what the artifact computes, kept in its manifest, and judged on other samples."""

import hashlib
import itertools

import numpy as np
import pytest

from edge_deploy.api.exits import fit_exits, ran_thresholds, shares_of_budget
from edge_deploy.api.plan import PlanRequest, read_problem
from edge_deploy.api.simulation_request import allowed_cuts
from edge_deploy.api.split import split
from edge_deploy.core.artifact import MANIFEST, Artifact, FileEntry
from edge_deploy.core.early_exit import confidence
from edge_deploy.core.errors import BadInput
from edge_deploy.core.profile import ModelProfile
from edge_deploy.core.quant_spec import QuantSpec
from edge_deploy.core.serde import write_json
from edge_deploy.core.signing import SIGNATURE
from partitioner.live.exits import exit_share
from partitioner.live.halves import read_halves, read_whole
from partitioner.live.pretend import PretendCloud
from partitioner.live.session import LiveSession
from runtimes.folder import read_artifact
from runtimes.formats.facts import read_signatures
from runtimes.formats.tflite import read_graph
from runtimes.session import open_session

WIDE, HIDDEN, CLASSES = 12, 24, 4


def linear(graph, source, name, outputs, weights, relu=False):
    out = graph.tensor(name, (1, outputs))
    kernel = graph.use(graph.emitter.constant(f"{name}/kernel", weights.astype(np.float32)))
    options = {"fusedActivationFunction": int(relu)}
    graph.op("FULLY_CONNECTED", [source, kernel], [out], "FullyConnectedOptions", **options)
    return out


@pytest.fixture
def two_exits(tmp_path):
    """The end multiplies by a matrix; the exit by one that is nearly the same, after a layer that loses nothing."""
    pytest.importorskip("ai_edge_litert")
    from converters.tflite.emit import Emitter

    rng = np.random.default_rng(0)
    right = rng.normal(size=(CLASSES, WIDE)) * 2
    both = np.concatenate([np.eye(WIDE), -np.eye(WIDE)])  # relu keeps the sign apart
    folded = np.concatenate([right, -right], axis=1)
    emitter = Emitter("test")
    graph = emitter.graph("main")
    x = graph.tensor("x", (1, WIDE))
    kept = linear(graph, x, "kept", HIDDEN, both, relu=True)
    early = linear(graph, kept, "early", CLASSES, folded + rng.normal(size=folded.shape) * 0.4)
    again = linear(graph, kept, "again", HIDDEN, np.eye(HIDDEN), relu=True)
    late = linear(graph, again, "late", CLASSES, folded)
    graph.sign("main", {"x": x}, {"first": early, "last": late})
    folder = tmp_path / "artifact"
    folder.mkdir()
    emitter.write(folder / "model.tflite")
    content = (folder / "model.tflite").read_bytes()
    signatures = read_signatures(folder / "model.tflite")
    artifact = Artifact(
        name="two",
        format="tflite",
        spec=QuantSpec(recipe="float32"),
        source="made",
        kind="cnn",
        files=(
            FileEntry(
                path="model.tflite", role="model", bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
            ),
        ),
        source_inputs=signatures[0].inputs,
        source_outputs=signatures[0].outputs,
        signatures=signatures,
        graph=read_graph(folder / "model.tflite"),
        outcomes=(),
        toolchain={},
    )
    write_json(artifact, folder / MANIFEST)
    for name, count in (("fit", 300), ("other", 200)):
        samples = rng.normal(size=(count, WIDE)).astype(np.float32)
        np.savez(tmp_path / f"{name}.npz", x=samples, y=(samples @ right.T).argmax(axis=1))
        np.savez(tmp_path / f"{name}_bare.npz", x=samples)
    return folder, tmp_path


def test_a_threshold_keeps_the_loss_within_the_limit_and_is_written_into_the_manifest(two_exits, tmp_path):
    folder, data = two_exits
    found = fit_exits(folder, data / "fit.npz", evaluate=data / "other.npz", max_drop=0.01)
    assert found.accuracy == 1.0 and found.chosen.accuracy >= 0.99
    assert 0.2 < 1 - found.chosen.shares[-1] < 1.0  # sure ones leave, doubtful ones do not
    assert found.held_out.accuracy > 0.9
    (written,) = read_artifact(folder).exits
    assert (written.output, written.answer, written.meaning, written.samples) == ("first", "last", "logit", 300)
    assert written.share == pytest.approx(found.chosen.shares[0])
    shares = [point.shares[0] for point in found.curve]
    assert shares == sorted(shares, reverse=True)
    assert all(point.mean_bytes == pytest.approx(point.shares[-1] * found.cut_bytes, abs=1) for point in found.curve)
    split(folder, cuts=[found.cut], out=tmp_path / "halves")
    whole = read_whole(folder)
    with_exit = {half.cut: exit_share(whole, half) for half in read_halves(whole, tmp_path / "halves")}
    assert with_exit == {"all-cloud": 0.0, found.cut: written.share, "all-edge": 0.0}


def test_a_plan_takes_the_share_that_was_fitted_and_prices_what_the_edge_really_runs(two_exits):
    folder, data = two_exits
    found = fit_exits(folder, data / "fit.npz", share=0.25)
    layers = {layer.name: 0.01 for layer in read_artifact(folder).graph.layers}
    profile = ModelProfile(
        artifact="two",
        sha256="",
        device="test",
        kernels="",
        provenance="measured",
        source="made",
        layer_s=layers,
        overhead_s=0.0,
        whole_s=0.01 * len(layers),
    )
    problem = read_problem(PlanRequest(artifact=folder, edge=profile, cloud=profile))
    assert problem.exits == {found.exits[0].layer: pytest.approx(0.25)}
    table = allowed_cuts(problem).table
    at = table.index(found.cut)
    assert table.exit_share[at] == pytest.approx(0.25)
    # Each half is one program: an exit in it saves the crossing, not the rest of the half.
    np.testing.assert_allclose(table.edge_s + table.cloud_s, 0.01 * len(layers))
    own = read_problem(PlanRequest(artifact=folder, edge=profile, cloud=profile, exits={"kept": 0.5}))
    assert own.exits == {"kept": 0.5}


def test_live_the_sure_ones_end_on_the_edge_and_the_others_get_the_whole_models_answer(two_exits, tmp_path):
    folder, data = two_exits
    found = fit_exits(folder, data / "fit.npz", max_drop=0.01)
    split(folder, cuts=[found.cut], out=tmp_path / "halves")
    whole = read_whole(folder)
    halves = read_halves(whole, tmp_path / "halves")
    tail, alone = open_session(tmp_path / "halves" / found.cut / "tail"), open_session(folder)
    cloud = PretendCloud(tails={found.cut: tail.run}, digest=whole.sha256)
    samples = np.load(data / "other.npz")["x"][:60]
    sure = 0
    with LiveSession(whole, halves, cloud.connect, lambda half: open_session(half.head), first=found.cut) as session:
        for sample in samples:
            feed = {"x": sample[None]}
            answer, wanted = session.infer(feed), alone.run(feed)
            ended = confidence(wanted["first"], "logit")[0] >= found.exits[0].threshold
            np.testing.assert_array_equal(answer["last"], wanted["first" if ended else "last"])
            sure += int(ended)
        assert session.settled_status().answered == {"edge": sure, "cloud": 60 - sure, "fallback": 0, "lost": 0}
    assert 0 < sure < 60
    tail.close()
    alone.close()


def test_shares_and_budgets_are_what_was_asked_for(two_exits):
    folder, data = two_exits
    half = fit_exits(folder, data / "fit_bare.npz", share=0.5)
    assert half.chosen.shares == (0.5, 0.5) and half.chosen.accuracy is None and half.chosen.agreement > 0.9
    budget = fit_exits(folder, data / "fit.npz", q=0.5)
    assert budget.chosen.shares == pytest.approx((2 / 3, 1 / 3), abs=0.005)
    never = fit_exits(folder, data / "fit.npz", share=0.0)
    assert never.chosen.shares == (0.0, 1.0) and read_artifact(folder).exits[0].threshold > 1


def test_what_cannot_be_fitted_is_refused_and_a_look_changes_nothing(two_exits):
    folder, data = two_exits
    before = (folder / MANIFEST).read_bytes()
    fit_exits(folder, data / "fit.npz", write=False)
    assert (folder / MANIFEST).read_bytes() == before
    with pytest.raises(BadInput, match="no output named second; the model has first, last"):
        fit_exits(folder, data / "fit.npz", exits=["second"])
    (folder / SIGNATURE).write_text("{}")
    with pytest.raises(BadInput, match="is signed; fit the exits first"):
        fit_exits(folder, data / "fit.npz")


def test_budgets_of_many_exits_add_up_and_thresholds_let_their_shares_leave():
    for q in (0.02, 0.5, 1.0, 3.0, 50.0):
        shares = shares_of_budget(q, 5)
        assert sum(shares) == pytest.approx(1.0)
        assert all(b / a == pytest.approx(q) for a, b in itertools.pairwise(shares))
    sure = np.random.default_rng(0).random((4, 1000))
    thresholds = ran_thresholds(sure, shares_of_budget(0.7, 4))
    there, left = np.ones(1000, dtype=bool), []
    for place, threshold in enumerate(thresholds):
        leaves = there & (sure[place] >= threshold)
        left.append(leaves.mean())
        there &= ~leaves
    assert [*left, there.mean()] == pytest.approx(list(shares_of_budget(0.7, 4)), abs=0.002)
    with pytest.raises(BadInput, match="must be above 0"):
        shares_of_budget(0.0, 2)
