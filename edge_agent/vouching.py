"""Who vouches for a bundle file a person hands over on the command line."""

from pathlib import Path

from pydantic import ValidationError

from edge_agent.config import Limits
from edge_agent.errors import UsageError
from edge_agent.trust import check_bytes, check_release
from inspection.contracts import TargetKind, TrustRoot, sha256_hex


def vouch(bundle: Path, trust: Path, envelope: Path) -> None:
    """TrustError unless a release key of the trust root file signed for exactly this bundle file."""
    try:
        root = TrustRoot.parse(trust.read_bytes())
    except ValidationError as error:
        raise UsageError(f"{trust} is not a trust root: {error}") from error
    data = bundle.read_bytes()
    release = check_release(
        envelope.read_bytes(),
        root,
        sha256_hex(data),
        kind=TargetKind.BUNDLE,
        product=None,
        max_length=Limits().max_bundle_bytes,
    )
    check_bytes(data, release)
