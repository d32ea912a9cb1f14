"""Whom this device believes: bytes in, decision out. No I/O, no clock, no state.

Invariants: nothing of a payload is parsed before a key of the trust root has signed it; an unsigned, wrongly signed or
zero-byte-signed envelope is refused; an assignment's serial never goes backwards, and one serial has one content; a
target's bytes are believed only when length and SHA-256 are those of a signed release.
Envelopes are DSSE (https://github.com/secure-systems-lab/dsse), keys Ed25519, one signature is enough.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error as SecureSystemsError
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]  # public, re-exported without __all__

from edge_agent.errors import TrustError
from inspection.contracts import Assignment, PublicKey, Release, Target, TargetKind, TrustRoot, sha256_hex

PAYLOAD_TYPE = "application/vnd.escapement+json"
MAX_ENVELOPE_BYTES = 256 * 1024


@dataclass(frozen=True)
class Seen:
    """The newest assignment this device has accepted: its serial and the digest of its signed payload."""

    serial: int
    payload_sha256: str


def _key(public: PublicKey) -> SSlibKey:
    try:
        loaded = load_pem_public_key(public.pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TrustError(f"key {public.keyid} of the trust root is unreadable; enrol this device again") from error
    if not isinstance(loaded, Ed25519PublicKey):
        raise TrustError(f"key {public.keyid} of the trust root is not Ed25519; enrol this device again")
    return SSlibKey.from_crypto(loaded, keyid=public.keyid)


def _strict_base64(text: Any) -> None:
    """Only the one canonical spelling of the bytes: Python's decoder ignores stray bits in the last character."""
    if base64.b64encode(base64.b64decode(text, validate=True)).decode() != text:
        raise ValueError("base64 is not canonical")


def _parse_envelope(data: bytes) -> Envelope:
    if len(data) > MAX_ENVELOPE_BYTES:
        raise TrustError(f"envelope of {len(data)} bytes is larger than {MAX_ENVELOPE_BYTES}: refused unread")
    try:
        document = json.loads(data)
        _strict_base64(document["payload"])
        for signature in document["signatures"]:
            _strict_base64(signature["sig"])
        return Envelope.from_dict(document)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError, SecureSystemsError) as error:
        raise TrustError(f"not a DSSE envelope: {type(error).__name__}; fetch it again or sign again") from error


def open_envelope(data: bytes, keys: Sequence[PublicKey]) -> bytes:
    """The payload of an envelope that one of ``keys`` signed. TrustError otherwise."""
    envelope = _parse_envelope(data)
    if envelope.payload_type != PAYLOAD_TYPE:
        raise TrustError(f"payload type {envelope.payload_type!r} is not {PAYLOAD_TYPE!r}")
    try:
        envelope.verify([_key(key) for key in keys], threshold=1)
    except (SecureSystemsError, ValueError) as error:
        raise TrustError("no key of the trust root signed this envelope: refused") from error
    return envelope.payload


def check_release(
    envelope: bytes, root: TrustRoot, sha256: str, *, kind: TargetKind, product: str | None, max_length: int
) -> Release:
    """The signed statement about the target ``sha256``. TrustError when unsigned, or about something else.

    ``product`` None accepts any product (a developer replaying a bundle has no station).
    """
    payload = open_envelope(envelope, root.release)
    try:
        release = Release.parse(payload)
    except ValidationError as error:
        raise TrustError(f"the signed payload is not a release: {error}") from error
    if release.sha256 != sha256:
        raise TrustError(f"the release is about {release.sha256[:12]}, wanted {sha256[:12]}")
    if release.kind is not kind or product not in (None, release.product):
        raise TrustError(f"the release is a {release.kind} for {release.product}, wanted a {kind} for {product}")
    if release.length > max_length:
        raise TrustError(f"{release.length} bytes are more than this device takes ({max_length})")
    return release


def check_target(release: Release, target: Target) -> None:
    """TrustError unless the fleet's assignment and the release speak of the same bytes and version."""
    if (release.sha256, release.length, release.version) != (target.sha256, target.length, target.version):
        raise TrustError(f"release {release.name} and the assignment disagree on digest, length or version; sign again")


def check_bytes(data: bytes, release: Release) -> None:
    """TrustError unless ``data`` has exactly the length and SHA-256 that were signed."""
    if len(data) != release.length:
        raise TrustError(f"{release.name}: {len(data)} bytes arrived, {release.length} were signed; fetched again later")
    if sha256_hex(data) != release.sha256:
        raise TrustError(f"{release.name}: bytes do not have the signed SHA-256; fetched again later")


def check_assignment(envelope: bytes, root: TrustRoot, station: str, last: Seen | None) -> tuple[Assignment, Seen]:
    """The assignment and what to remember of it. TrustError when unsigned, for another station, or older than ``last``.

    The same serial with the same content is accepted again: a poll repeats itself.
    """
    payload = open_envelope(envelope, root.fleet)
    try:
        assignment = Assignment.parse(payload)
    except ValidationError as error:
        raise TrustError(f"the signed payload is not an assignment: {error}") from error
    seen = Seen(assignment.serial, sha256_hex(payload))
    if assignment.station != station:
        raise TrustError(f"the assignment is for station {assignment.station!r}, this is {station!r}")
    if last is not None and seen.serial < last.serial:
        raise TrustError(f"serial {seen.serial} is older than {last.serial}: refused; issue a higher serial to go back")
    if last is not None and seen.serial == last.serial and seen != last:
        raise TrustError(f"serial {seen.serial} came with two different contents: refused; issue a higher serial")
    return assignment, seen
