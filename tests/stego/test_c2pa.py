"""A picture's manifest is read back by the library that others use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nerfkit.stego.c2pa import ALGORITHM, _certificate, _pem, binding, chain_of, with_manifest
from nerfkit.stego.keys import Key, StegoError

KEY = Key(bytes(range(32)))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    return path


def test_certificates_are_the_keys_own_and_chain() -> None:
    x509 = pytest.importorskip("cryptography.x509")
    chain, private = chain_of(KEY)
    leaf, root = x509.load_pem_x509_certificates(chain)
    assert chain_of(KEY)[0] == chain and chain_of(Key(bytes([1]) * 32))[0] != chain
    assert leaf.public_key() == private.public_key()
    leaf.verify_directly_issued_by(root)
    root.verify_directly_issued_by(root)
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature and not usage.key_cert_sign
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("files", [False, True], ids=["key", "files"])
def test_the_manifest_is_read_back(picture: Path, kind: str, files: bool) -> None:
    c2pa = pytest.importorskip("c2pa", reason="content credentials need c2pa-python")
    given, out = picture.with_suffix(f".{kind}"), picture.with_name(f"out.{kind}")
    Image.open(picture).save(given)
    signer = KEY
    if files:
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding

        own, (_, authority) = ec.generate_private_key(ec.SECP256R1()), chain_of(KEY)
        signer = picture.with_name("chain.pem"), picture.with_name("private.pem")
        roots = [_certificate(name, key, "a", authority) for name, key in (("b", own), ("a", authority))]
        signer[0].write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in roots))
        signer[1].write_bytes(_pem(own))
    with_manifest(given, out, binding("abcdef" * 4, b"ours"), signer)
    with c2pa.Reader(out) as reader:
        manifest = reader.get_active_manifest()
        assert reader.get_validation_state() == "Valid"
    said = {one["label"]: one["data"] for one in manifest["assertions"]}
    assert said["c2pa.soft-binding"]["alg"] == ALGORITHM
    assert [block["value"] for block in said["c2pa.soft-binding"]["blocks"]] == ["abcdefabcdefabcd*6f757273"]
    assert "c2pa.watermarked" in {one["action"] for one in said["c2pa.actions.v2"]["actions"]}
    assert manifest["signature_info"]["alg"] == ("Es256" if files else "Ed25519")
    assert np.array_equal(np.asarray(Image.open(out)), np.asarray(Image.open(given)))
    assert KEY.secret not in out.read_bytes()


def test_a_changed_picture_is_no_longer_valid(picture: Path) -> None:
    c2pa = pytest.importorskip("c2pa", reason="content credentials need c2pa-python")
    out = picture.with_name("out.jpg")
    Image.open(picture).save(picture.with_suffix(".jpg"))
    with_manifest(picture.with_suffix(".jpg"), out, "a*b", KEY)
    data = bytearray(out.read_bytes())
    data[-20] ^= 1
    out.write_bytes(data)
    with c2pa.Reader(out) as reader:
        assert reader.get_validation_state() == "Invalid"
        assert "assertion.dataHash.mismatch" in json.dumps(reader.get_validation_results())


def test_what_cannot_be_is_one_sentence(picture: Path, tmp_path: Path) -> None:
    pytest.importorskip("c2pa", reason="content credentials need c2pa-python")
    (tmp_path / "text.png").write_text("no picture")
    for given, out, signer in (
        (picture, tmp_path / "out.jpg", KEY),
        (tmp_path / "text.png", tmp_path / "out.png", KEY),
        (picture, tmp_path / "out.png", (picture, picture)),
        (picture, tmp_path / "out.png", (tmp_path / "none", picture)),
    ):
        with pytest.raises(StegoError):
            with_manifest(given, out, "a*b", signer)
        assert not out.exists()
