"""What a device is told carries a signature of the right role, and nothing else counts."""

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.contracts import Assignment, Mode, Release, TargetKind, TrustRoot
from inspection.errors import BundleError, EnvironmentTroubleError, UsageError
from inspection.release.signing import (
    Keys,
    load_or_create_keys,
    sign_assignment,
    sign_release,
    trust_root,
    verify_assignment,
    verify_release,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RELEASE = Release(
    kind=TargetKind.BUNDLE, product="plate", name="plate-edge", version=1, sha256="a" * 64, length=10, signed_at=NOW
)
ASSIGNMENT = Assignment(station="s1", serial=1, mode=Mode.JUDGE, issued_at=NOW)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Fresh keys."""
    return load_or_create_keys(tmp_path_factory.mktemp("state") / "keys")


def test_a_signed_release_comes_back(keys: Keys) -> None:
    """Signing and verifying give the same document, for both roles."""
    assert verify_release(sign_release(keys, RELEASE), trust_root(keys)) == RELEASE
    assert verify_assignment(sign_assignment(keys, ASSIGNMENT), trust_root(keys)) == ASSIGNMENT


def test_keys_are_kept_and_private(tmp_path: Path) -> None:
    """The second load gives the same keys; the files are for their owner only."""
    first, second = load_or_create_keys(tmp_path / "keys"), load_or_create_keys(tmp_path / "keys")
    assert trust_root(first) == trust_root(second)
    for name in ("release.pem", "fleet.pem"):
        assert stat.S_IMODE((tmp_path / "keys" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert sorted(p.name for p in (tmp_path / "keys").iterdir()) == ["fleet.pem", "release.pem"]


def test_a_passphrase_protects_the_private_key(tmp_path: Path) -> None:
    """The file is encrypted and useless without the passphrase."""
    made = load_or_create_keys(tmp_path, passphrase="open sesame")
    assert b"ENCRYPTED" in (tmp_path / "release.pem").read_bytes()
    assert trust_root(load_or_create_keys(tmp_path, passphrase="open sesame")) == trust_root(made)
    for wrong in (None, "shut"):
        with pytest.raises(UsageError, match="passphrase"):
            load_or_create_keys(tmp_path, passphrase=wrong)


def test_a_key_others_may_read_is_refused(tmp_path: Path) -> None:
    """A signing key with loose permissions must be looked at by somebody."""
    load_or_create_keys(tmp_path)
    (tmp_path / "fleet.pem").chmod(0o644)
    with pytest.raises(EnvironmentTroubleError, match="chmod 600"):
        load_or_create_keys(tmp_path)


def test_roles_do_not_stand_in_for_each_other(keys: Keys) -> None:
    """A release signed by the fleet key is refused, and so is an assignment signed by the release key."""
    swapped = Keys(release=keys.fleet, fleet=keys.release)
    with pytest.raises(BundleError, match="no trusted key"):
        verify_release(sign_release(swapped, RELEASE), trust_root(keys))
    with pytest.raises(BundleError, match="no trusted key"):
        verify_assignment(sign_assignment(swapped, ASSIGNMENT), trust_root(keys))


def test_a_stranger_with_a_trusted_key_id_is_refused(keys: Keys, tmp_path: Path) -> None:
    """Writing our key's id over another signature does not help."""
    body = json.loads(sign_release(load_or_create_keys(tmp_path), RELEASE))
    body["signatures"][0]["keyid"] = trust_root(keys).release[0].keyid
    with pytest.raises(BundleError, match="no trusted key"):
        verify_release(json.dumps(body).encode(), trust_root(keys))


@pytest.mark.parametrize("signatures", [[], [{"keyid": "", "sig": ""}], "zero"])
def test_an_empty_signature_is_refused(keys: Keys, signatures: object) -> None:
    """No signature, a zero-byte one, and a zero-byte one under our key's id."""
    if signatures == "zero":
        signatures = [{"keyid": trust_root(keys).release[0].keyid, "sig": ""}]
    body = json.loads(sign_release(keys, RELEASE)) | {"signatures": signatures}
    with pytest.raises(BundleError):
        verify_release(json.dumps(body).encode(), trust_root(keys))


def test_another_payload_type_is_refused(keys: Keys) -> None:
    """The type is part of what is signed and must be ours."""
    body = json.loads(sign_release(keys, RELEASE)) | {"payloadType": "application/json"}
    with pytest.raises(BundleError, match="expected"):
        verify_release(json.dumps(body).encode(), trust_root(keys))


def test_a_trust_root_whose_ids_lie_is_refused(keys: Keys) -> None:
    """A key must be the one its id names."""
    root = trust_root(keys)
    lying = TrustRoot(release=[root.fleet[0].model_copy(update={"keyid": root.release[0].keyid})], fleet=root.fleet)
    with pytest.raises(BundleError, match="another key"):
        verify_release(sign_release(keys, RELEASE), lying)


@given(st.data())
def test_no_changed_byte_gets_through(keys: Keys, data: st.DataObject) -> None:
    """Any one byte changed: refused, or (a key's unused bits, spacing) the very same release."""
    envelope = bytearray(sign_release(keys, RELEASE))
    place = data.draw(st.integers(0, len(envelope) - 1))
    envelope[place] ^= data.draw(st.integers(1, 255))
    try:
        assert verify_release(bytes(envelope), trust_root(keys)) == RELEASE
    except BundleError:
        return


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text(), st.lists).map(lambda v: json.dumps(v).encode()))
def test_rubbish_is_a_bundle_error(keys: Keys, rubbish: bytes) -> None:
    """Whatever arrives, the answer is one kind of error."""
    with pytest.raises(BundleError):
        verify_release(rubbish, trust_root(keys))
