"""Content credentials: a picture with a signed manifest (C2PA) that says which mark is in it.

The manifest holds the assertion ``c2pa.soft-binding``, by which the picture is told again where the manifest was taken
off, and the action ``c2pa.watermarked``. Certificates of an owner's key are drawn from it, the same at any time. They
are valid, and trusted by nobody who was not told to, as anyone can make such.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nerfkit import __version__
from nerfkit.aside import file_aside
from nerfkit.stego.keys import Key, StegoError

ALGORITHM = "io.github.nerfkit.mark"
"""Not in C2PA's list of soft bindings."""
_SINCE, _UNTIL = datetime(2025, 1, 1, tzinfo=UTC), datetime(2055, 1, 1, tzinfo=UTC)
"""Of certificates; fixed, so that a key has one chain."""
_BY_CURVE = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


def binding(scene: str, message: bytes) -> str:
    """What a soft binding holds of a mark: the beginning of the scene's digest, and the message.

    >>> binding("0123456789abcdef01", b"ours")
    '0123456789abcdef*6f757273'
    """
    return f"{scene[:16]}*{message.hex()}"


def with_manifest(picture: Path, out: Path, value: str, signer: Key | tuple[Path, Path]) -> None:
    """Write a copy of a picture with a manifest.

    Args:
        out: of the same kind as the picture, by its ending.
        value: of the soft binding.
        signer: an owner's key, or PEM files of a certificate chain, the signer's first, and of its private key.

    Raises StegoError where c2pa is missing, a file cannot be used, or the picture is of no kind that C2PA knows.
    """
    if find_spec("c2pa") is None:
        raise StegoError("--c2pa needs the package c2pa-python: pip install 'nerfkit[c2pa]'")
    import c2pa

    if out.suffix.lower() != picture.suffix.lower():
        raise StegoError(f"{out}: is to be a copy of {picture.name}, give it the ending {picture.suffix}")
    bound = {"alg": ALGORITHM, "blocks": [{"scope": {}, "value": value}]}
    manifest = {
        "claim_generator_info": [{"name": "nerfkit", "version": __version__}],
        "title": out.name,
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [{"action": "c2pa.watermarked"}]}},
            {"label": "c2pa.soft-binding", "data": bound},
        ],
    }
    chain, private = chain_of(signer) if isinstance(signer, Key) else _read(*signer)
    info = c2pa.C2paSignerInfo(_algorithm(private), chain, _pem(private), None)
    try:
        with file_aside(out) as aside, c2pa.Signer.from_info(info) as by, c2pa.Builder(json.dumps(manifest)) as builder:
            builder.set_intent(c2pa.C2paBuilderIntent.EDIT)  # what was known of the picture stays with it
            builder.sign_file(picture, aside, by)
    except c2pa.C2paError as error:
        raise StegoError(f"{picture}: no manifest can be made for it: {error}") from None


def chain_of(key: Key) -> tuple[bytes, Any]:
    """The certificates of an owner's key (PEM, the signer's and then the authority's), and the private key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding

    authority = Ed25519PrivateKey.from_private_bytes(key.derived("authority of C2PA"))
    signer = Ed25519PrivateKey.from_private_bytes(key.derived("signer of C2PA"))
    root = f"nerfkit key {key.name}, authority"
    certificates = (
        _certificate(f"nerfkit key {key.name}", signer, root, authority),
        _certificate(root, authority, root, authority),
    )
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates), signer


def _certificate(subject: str, key: Any, issuer: str, by: Any) -> Any:
    """A certificate that an authority gives, itself one where it is its own."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(text: str) -> x509.Name:
        both = ((NameOID.COMMON_NAME, text), (NameOID.ORGANIZATION_NAME, "owner of a nerfkit key"))
        return x509.Name([x509.NameAttribute(*one) for one in both])

    root, public = subject == issuer, key.public_key()
    digest = x509.SubjectKeyIdentifier.from_public_key(public)
    serial = int.from_bytes(digest.digest[:19]) | 1
    usage = x509.KeyUsage(
        digital_signature=not root,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=root,
        crl_sign=root,
        encipher_only=False,
        decipher_only=False,
    )
    made = x509.CertificateBuilder(name(issuer), name(subject), public, serial, _SINCE, _UNTIL)
    made = made.add_extension(x509.BasicConstraints(root, None), critical=True).add_extension(usage, critical=True)
    made = made.add_extension(digest, critical=False)
    made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    if not root:
        made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return made.sign(by, None)


def _read(chain: Path, private: Path) -> tuple[bytes, Any]:
    """Of PEM files."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return chain.read_bytes(), load_pem_private_key(private.read_bytes(), None)
    except OSError as error:
        raise StegoError(f"{error.filename}: {error.strerror or error}") from None
    except (ValueError, TypeError):
        raise StegoError(f"{private}: is no private key in PEM, or has a password") from None


def _algorithm(private: Any) -> str:
    """By which a key signs, as C2PA names it."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    if isinstance(private, Ed25519PrivateKey):
        return "ed25519"
    if isinstance(private, RSAPrivateKey):
        return "ps256"
    curve = getattr(getattr(private, "curve", None), "name", "")
    if curve not in _BY_CURVE:
        raise StegoError(f"a private key of this kind ({curve or type(private).__name__}) signs nothing in C2PA")
    return _BY_CURVE[curve]


def _pem(private: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
