"""Signing: the release key and the fleet key (Ed25519), and DSSE envelopes around canonical contracts.

Invariants: private keys are PEM files of mode 0600 in a folder of mode 0700 and never leave it; a key's id is the SHA-256
of its 32 raw public bytes; an envelope counts only with a verified signature of a key its role trusts, and its payload is
parsed after that and never before; release keys do not sign assignments, nor fleet keys releases.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import BaseModel, ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error as SigningLibraryError
from securesystemslib.signer import (  # type: ignore[attr-defined]  # documented, though not in its __all__
    CryptoSigner,
    Key,
    SSlibKey,
)

from inspection.contracts import Assignment, Contract, PublicKey, Release, TrustRoot, sha256_hex
from inspection.errors import BundleError, EnvironmentTroubleError, UsageError

PAYLOAD_TYPE = "application/vnd.escapement+json"
RELEASE_KEY = "release.pem"
FLEET_KEY = "fleet.pem"
_DSSE_SIGNATURES = 1  # valid signatures an envelope needs

Document = TypeVar("Document", bound=Contract)


@dataclass(frozen=True)
class Keys:
    """Signers of the two roles; they may hold private keys, so they are never logged or sent."""

    release: CryptoSigner
    fleet: CryptoSigner


class _SignatureForm(BaseModel):
    keyid: str
    sig: str


class _EnvelopeForm(BaseModel):
    """The outer shape, checked before the signature library reads it."""

    payload: str
    payloadType: str  # noqa: N815 - DSSE's own name
    signatures: list[_SignatureForm]


def keyid_of(key: Ed25519PublicKey) -> str:
    """SHA-256 of the 32 raw public bytes, in hexadecimal."""
    return sha256_hex(key.public_bytes(Encoding.Raw, PublicFormat.Raw))


def _signer(private: Ed25519PrivateKey) -> CryptoSigner:
    public = private.public_key()
    return CryptoSigner(private, SSlibKey.from_crypto(public, keyid_of(public), "ed25519"))


def _encryption(passphrase: str | None) -> KeySerializationEncryption:
    return BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()


def _write_once(path: Path, content: bytes) -> None:
    """Create ``path`` with mode 0600; when another process was first, its file counts."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        os.link(temporary, path)
    except FileExistsError:
        pass  # the link: both processes go on with the key that is there
    finally:
        temporary.unlink()


def _read_private(path: Path, passphrase: str | None) -> Ed25519PrivateKey:
    if path.stat().st_mode & 0o077:
        raise EnvironmentTroubleError(f"others may read the signing key {path}: chmod 600 it, and replace it if they did")
    try:
        key = load_pem_private_key(path.read_bytes(), passphrase.encode() if passphrase else None)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"signing key {path} cannot be read: {error}. Give the right passphrase, or restore the file"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"signing key {path} is not an Ed25519 key: move it away to have a new one made")
    return key


def _load_or_create(path: Path, passphrase: str | None) -> CryptoSigner:
    if not path.exists():
        made = CryptoSigner.generate_ed25519()
        key = load_pem_private_key(made.private_bytes, None)
        _write_once(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, _encryption(passphrase)))
    return _signer(_read_private(path, passphrase))


def load_or_create_keys(folder: Path, *, passphrase: str | None = None) -> Keys:
    """Read ``release.pem`` and ``fleet.pem`` of ``folder``, or make them the first time (encrypted with ``passphrase``).

    Raises UsageError on an unreadable key or a wrong passphrase, EnvironmentTroubleError when others may read a key.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Keys(
        release=_load_or_create(folder / RELEASE_KEY, passphrase), fleet=_load_or_create(folder / FLEET_KEY, passphrase)
    )


def _public(signer: CryptoSigner) -> PublicKey:
    raw = bytes.fromhex(signer.public_key.keyval["public"])
    pem = Ed25519PublicKey.from_public_bytes(raw).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(keyid=signer.public_key.keyid, pem=pem.decode())


def trust_root(keys: Keys) -> TrustRoot:
    """What a device is told to believe: the public halves."""
    return TrustRoot(release=[_public(keys.release)], fleet=[_public(keys.fleet)])


def _sign(signer: CryptoSigner, document: Contract) -> bytes:
    envelope = Envelope(document.canonical(), PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return json.dumps(envelope.to_dict(), sort_keys=True).encode()


def sign_release(keys: Keys, release: Release) -> bytes:
    """The DSSE envelope (JSON) of a release, signed with the release key."""
    return _sign(keys.release, release)


def sign_assignment(keys: Keys, assignment: Assignment) -> bytes:
    """The DSSE envelope (JSON) of an assignment, signed with the fleet key."""
    return _sign(keys.fleet, assignment)


def verify_release(envelope: bytes, trust: TrustRoot) -> Release:
    """The release inside a verified envelope. Raises BundleError when anything about it is wrong."""
    return _verified(envelope, trust.release, Release)


def verify_assignment(envelope: bytes, trust: TrustRoot) -> Assignment:
    """The assignment inside a verified envelope. Raises BundleError when anything about it is wrong."""
    return _verified(envelope, trust.fleet, Assignment)


def _trusted(keys: Sequence[PublicKey]) -> list[Key]:
    found: list[Key] = []
    for key in keys:
        public = load_pem_public_key(key.pem.encode())
        if not isinstance(public, Ed25519PublicKey) or keyid_of(public) != key.keyid:
            raise BundleError(f"trust root names key {key.keyid[:12]}, but its PEM is another key: enrol the device again")
        found.append(SSlibKey.from_crypto(public, key.keyid, "ed25519"))
    return found


def _verified(data: bytes, keys: Sequence[PublicKey], contract: type[Document]) -> Document:
    try:
        form = _EnvelopeForm.model_validate_json(data)
        envelope = Envelope.from_dict(form.model_dump())
    except (ValueError, SigningLibraryError) as error:
        raise BundleError(
            f"envelope of a {contract.__name__} cannot be read ({error}): it was damaged, fetch it again"
        ) from error
    if envelope.payload_type != PAYLOAD_TYPE:
        raise BundleError(f"envelope holds {envelope.payload_type!r}, expected {PAYLOAD_TYPE!r}: it is not one of ours")
    try:
        envelope.verify(_trusted(keys), _DSSE_SIGNATURES)
    except (ValueError, SigningLibraryError) as error:
        raise BundleError(
            f"no trusted key signed this {contract.__name__} ({error}): it was changed on the way, or signed elsewhere"
        ) from error
    try:
        return contract.parse(envelope.payload)
    except ValidationError as error:
        raise BundleError(f"signed payload is no {contract.__name__} this program reads: {error}") from error
