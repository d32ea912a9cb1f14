"""Nothing is believed that was not signed, whole, for us, and newer than what we know."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import TrustError
from edge_agent.trust import Seen, check_assignment, check_bytes, check_release, open_envelope
from inspection.contracts import Release, TargetKind, canonical_json, sha256_hex
from tests.edge_agent.helpers import PRODUCT, STATION, Authority, Key, bundle

DATA = bundle()


def release(authority: Authority, envelope: bytes, **how: Any) -> Release:
    wanted: dict[str, Any] = {"kind": TargetKind.BUNDLE, "product": PRODUCT, "max_length": 10**9}
    return check_release(envelope, authority.root, sha256_hex(DATA), **(wanted | how))


def test_a_signed_release_is_believed(authority: Authority) -> None:
    """The good case, so that the refusals below mean something."""
    check_bytes(DATA, release(authority, authority.envelope(DATA)))


def test_every_flipped_byte_of_an_envelope_is_refused(authority: Authority) -> None:
    """One flipped bit anywhere in the envelope: refused."""
    envelope = authority.envelope(DATA)
    for position in range(len(envelope)):
        flipped = bytearray(envelope)
        flipped[position] ^= 1
        with pytest.raises(TrustError):
            release(authority, bytes(flipped))


def test_flipped_bytes_of_a_bundle_are_refused(authority: Authority) -> None:
    """One flipped bit at the first, the last, and every 97th byte of the tar: refused by its digest."""
    signed = release(authority, authority.envelope(DATA))
    for position in {0, len(DATA) - 1, *range(0, len(DATA), 97)}:
        flipped = bytearray(DATA)
        flipped[position] ^= 1
        with pytest.raises(TrustError, match="SHA-256"):
            check_bytes(bytes(flipped), signed)


@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"\0", b""])
def test_another_length_is_refused(authority: Authority, data: bytes) -> None:
    """Truncated or extended bytes: refused by their length."""
    with pytest.raises(TrustError, match="bytes arrived"):
        check_bytes(data, release(authority, authority.envelope(DATA)))


def resigned(envelope: bytes, signatures: list[dict[str, str]]) -> bytes:
    return canonical_json(json.loads(envelope) | {"signatures": signatures})


@pytest.mark.parametrize("signature", [b"", b"\0", b"\0" * 63, b"\0" * 64, b"\0" * 65])
def test_a_zero_byte_signature_is_refused(authority: Authority, signature: bytes) -> None:
    """An empty signature, or one of zeros, under the right key id: refused."""
    sig = {"keyid": authority.release.public.keyid, "sig": base64.b64encode(signature).decode()}
    with pytest.raises(TrustError, match="no key of the trust root"):
        release(authority, resigned(authority.envelope(DATA), [sig]))


def test_no_signature_is_refused(authority: Authority) -> None:
    """An envelope with an empty list of signatures: refused."""
    with pytest.raises(TrustError, match="no key of the trust root"):
        release(authority, resigned(authority.envelope(DATA), []))


def test_a_foreign_key_is_refused_also_under_our_key_id(authority: Authority) -> None:
    """A stranger's signature is refused, and so is one that borrows our key's id."""
    foreign = Authority().envelope(DATA)
    with pytest.raises(TrustError, match="no key"):
        release(authority, foreign)
    borrowed = json.loads(foreign)["signatures"][0] | {"keyid": authority.release.public.keyid}
    with pytest.raises(TrustError, match="no key"):
        release(authority, resigned(foreign, [borrowed]))


def test_a_fleet_key_may_not_sign_releases_nor_a_release_key_assignments(authority: Authority) -> None:
    """Each role has its own keys."""
    payload = open_envelope(authority.envelope(DATA), authority.root.release)
    with pytest.raises(TrustError, match="no key"):
        release(authority, authority.fleet.sign(payload))
    assigned = open_envelope(authority.assignment(1), authority.root.fleet)
    with pytest.raises(TrustError, match="no key"):
        check_assignment(authority.release.sign(assigned), authority.root, STATION, None)


def test_another_payload_type_is_refused(authority: Authority) -> None:
    """A signature over something of another type is none over a release."""
    payload = open_envelope(authority.envelope(DATA), authority.root.release)
    with pytest.raises(TrustError, match="payload type"):
        release(authority, authority.release.sign(payload, "application/json"))


@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({"product": "gadget"}, {}),
        ({"kind": TargetKind.RECIPE}, {}),
        ({"sha256": "0" * 64}, {}),
        ({}, {"max_length": 10}),
    ],
)
def test_a_release_about_something_else_is_refused(
    authority: Authority, changes: dict[str, Any], how: dict[str, Any]
) -> None:
    """Well signed, but for another product, kind or target, or too large for this device."""
    kind = changes.pop("kind", TargetKind.BUNDLE)
    with pytest.raises(TrustError):
        release(authority, authority.envelope(DATA, kind=kind, **changes), **how)


@pytest.mark.parametrize("junk", [b"", b"{}", b"[]", b"null", b'{"payload": 1}', b"\xff\xfe", b"[" * 100_000, b"x" * 10**6])
def test_junk_is_refused_in_words(authority: Authority, junk: bytes) -> None:
    """Whatever arrives instead of an envelope is a TrustError, never a crash."""
    with pytest.raises(TrustError):
        release(authority, junk)


def test_an_assignment_for_another_station_is_refused(authority: Authority) -> None:
    """A neighbour's assignment, replayed here."""
    with pytest.raises(TrustError, match="station"):
        check_assignment(authority.assignment(1, station="press2"), authority.root, STATION, None)


AUTHORITY = Authority(Key.make(), Key.make())


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8))
def test_serials_never_go_backwards(serials: list[int]) -> None:
    """Whatever the order of arrival, the accepted serials rise, and an equal one is accepted again."""
    last: Seen | None = None
    for serial in serials:
        envelope = AUTHORITY.assignment(serial)
        if last is not None and serial < last.serial:
            with pytest.raises(TrustError, match="older"):
                check_assignment(envelope, AUTHORITY.root, STATION, last)
        else:
            _, last = check_assignment(envelope, AUTHORITY.root, STATION, last)
            assert last.serial == serial


def test_one_serial_has_one_content(authority: Authority) -> None:
    """The same serial with another content is refused."""
    _, seen = check_assignment(authority.assignment(3), authority.root, STATION, None)
    with pytest.raises(TrustError, match="two different contents"):
        check_assignment(authority.assignment(3, audit_share=0.5), authority.root, STATION, seen)
