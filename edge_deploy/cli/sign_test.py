"""Signing from the command line, and every loader that checks it."""

import json

import pytest

pytest.importorskip("cryptography")
pytest.importorskip("ai_edge_litert")

import edge_deploy
from edge_deploy.cli.main_test import run
from edge_deploy.core.errors import BadInput
from edge_deploy.core.signing import SIGNATURE
from runtimes.formats.by_hand_test import dense
from runtimes.session_test import make_folder


@pytest.fixture
def signed(tmp_path):
    """Two artifacts in one folder, signed by the command, and the public key."""
    (tmp_path / "out").mkdir()
    for name in ("a", "b"):
        make_folder(tmp_path / "out" / name, dense())
    code, out, err = run("sign", "--new-key", tmp_path / "key.pem", tmp_path / "out")
    assert code == 0 and out.count("signed with key") == 2, err
    return tmp_path / "out", tmp_path / "key.pem.pub"


def test_signed_artifacts_are_accepted_by_every_loader(signed):
    folder, public = signed
    code, out, err = run("verify-signature", folder, "--public-key", public, "--json")
    assert code == 0 and len(json.loads(out)["checked"]) == 2, err
    session = edge_deploy.open_session(folder / "a", public_key=public)
    assert session.signature.inputs
    assert edge_deploy.read_artifact(folder / "a", public_key=public).name == "by-hand"


def test_a_replaced_model_file_is_named(signed):
    folder, public = signed
    (folder / "b/model.tflite").write_bytes(b"something else")
    code, _, err = run("verify-signature", folder, "--public-key", public)
    assert code == 3 and "b/model.tflite: 14 bytes, the manifest says" in err
    with pytest.raises(BadInput, match=r"model\.tflite"):
        edge_deploy.open_session(folder / "b", public_key=public)


def test_a_model_replaced_together_with_its_manifest_is_named(signed):
    folder, public = signed
    (folder / "b/manifest.json").write_bytes((folder / "b/manifest.json").read_bytes().replace(b"by-hand", b"by-evil"))
    with pytest.raises(BadInput, match=r"manifest\.json: was changed after it was signed"):
        edge_deploy.open_session(folder / "b", public_key=public)
    code, _, err = run("verify", folder / "b", "--public-key", public)
    assert code == 3 and "was changed after it was signed" in err
    code, _, err = run("benchmark", folder / "b", "--public-key", public)
    assert code == 3 and "was changed after it was signed" in err


def test_without_a_key_nothing_is_asked_and_with_one_nothing_passes_unsigned(signed):
    folder, public = signed
    (folder / "a" / SIGNATURE).unlink()
    assert edge_deploy.open_session(folder / "a").signature.inputs
    with pytest.raises(BadInput, match="is not signed"):
        edge_deploy.open_session(folder / "a", public_key=public)
    with pytest.raises(BadInput, match="bare file"):
        edge_deploy.open_session(folder / "a/model.tflite", public_key=public)


def test_an_artifact_that_is_not_whole_is_not_signed(signed):
    folder, public = signed
    (folder / "a/model.tflite").write_bytes(b"x")
    code, _, err = run("sign", "--key", public.with_suffix(""), folder)
    assert code == 3 and "model.tflite" in err


@pytest.mark.parametrize("words", [(), ("--key", "a", "--new-key", "b"), ("--key", "a")])
def test_a_wish_without_a_key_or_an_artifact_is_explained(words):
    code, _, err = run("sign", *words)
    assert code == 3 and ("--new-key" in err or "no artifact" in err)
