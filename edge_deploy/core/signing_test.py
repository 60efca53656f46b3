import json
import stat

import pytest

from edge_deploy.core.artifact import MANIFEST
from edge_deploy.core.errors import BadInput
from edge_deploy.core.signing import SIGNATURE, check_signature, create_key, sign_manifest

pytest.importorskip("cryptography")


@pytest.fixture
def signed(tmp_path):
    """A folder with a signed manifest, and the public key."""
    (tmp_path / "artifact").mkdir()
    (tmp_path / "artifact" / MANIFEST).write_text('{"name": "net"}\n')
    public = create_key(tmp_path / "key.pem")
    sign_manifest(tmp_path / "artifact", tmp_path / "key.pem")
    return tmp_path / "artifact", public


def test_what_was_signed_is_accepted_and_named(signed):
    folder, public = signed
    found = check_signature(folder, public)
    assert found.algorithm == "ed25519" and len(found.key_id) == 16


def test_a_private_key_is_its_owners_only_and_never_replaced(tmp_path):
    create_key(tmp_path / "key.pem")
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    before = (tmp_path / "key.pem").read_bytes()
    with pytest.raises(BadInput, match="exists already"):
        create_key(tmp_path / "key.pem")
    assert (tmp_path / "key.pem").read_bytes() == before


def test_a_manifest_changed_after_signing_is_named(signed):
    folder, public = signed
    (folder / MANIFEST).write_text('{"name": "evil"}\n')
    with pytest.raises(BadInput, match=rf"{MANIFEST}: was changed after it was signed"):
        check_signature(folder, public)


def test_a_changed_manifest_with_its_digest_put_right_is_a_forgery(signed):
    import hashlib

    folder, public = signed
    (folder / MANIFEST).write_text('{"name": "evil"}\n')
    told = json.loads((folder / SIGNATURE).read_text())
    told["manifest_sha256"] = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    (folder / SIGNATURE).write_text(json.dumps(told))
    with pytest.raises(BadInput, match="forged or damaged"):
        check_signature(folder, public)


def test_a_signature_by_somebody_else_is_refused_with_both_keys(signed, tmp_path):
    folder, public = signed
    other = create_key(tmp_path / "other.pem")
    with pytest.raises(BadInput, match=f"made with key {check_signature(folder, public).key_id}, not with {other}"):
        check_signature(folder, other)


def test_somebody_elses_key_under_my_name_is_a_forgery(signed, tmp_path):
    folder, public = signed
    mine = check_signature(folder, public).key_id
    create_key(tmp_path / "other.pem")
    sign_manifest(folder, tmp_path / "other.pem")
    told = json.loads((folder / SIGNATURE).read_text())
    (folder / SIGNATURE).write_text(json.dumps({**told, "key_id": mine}))
    with pytest.raises(BadInput, match="forged or damaged"):
        check_signature(folder, public)


def test_an_unsigned_folder_says_what_to_do(signed):
    folder, public = signed
    (folder / SIGNATURE).unlink()
    with pytest.raises(BadInput, match=r"is not signed.*edge-deploy sign"):
        check_signature(folder, public)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_key_is_refused_by_its_path(signed, tmp_path, content):
    folder, _ = signed
    (tmp_path / "bad.pem").write_bytes(content)
    with pytest.raises(BadInput, match=r"bad\.pem: is no public key"):
        check_signature(folder, tmp_path / "bad.pem")
    with pytest.raises(BadInput, match=r"bad\.pem: is no private key"):
        sign_manifest(folder, tmp_path / "bad.pem")


def test_keys_of_other_kinds_are_refused(signed, tmp_path):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder, _ = signed
    key = ec.generate_private_key(ec.SECP256R1())
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (tmp_path / "ec.pem").write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "ec.pub").write_bytes(key.public_key().public_bytes(encoding, form))
    with pytest.raises(BadInput, match="Ed25519"):
        sign_manifest(folder, tmp_path / "ec.pem")
    with pytest.raises(BadInput, match="Ed25519"):
        check_signature(folder, tmp_path / "ec.pub")
