"""Capability links to pictures: whoever holds the link may see that one picture, and nobody can guess another.

Invariant: the link of a picture never changes while the link key stays, so a labelling task outlives any session.
"""

import hashlib
import hmac

from inspection.settings import Settings


def picture_mac(settings: Settings, sha256: str) -> str:
    """HMAC-SHA256 of a picture's digest under the link key, 64 hexadecimal digits (RFC 2104)."""
    key = settings.secrets.link_key.get_secret_value().encode()
    return hmac.new(key, sha256.encode(), hashlib.sha256).hexdigest()


def picture_path(settings: Settings, sha256: str) -> str:
    """The link without the hub's address: for the hub's own pages, which may be reached under several names."""
    return f"/p/{sha256}-{picture_mac(settings, sha256)}"


def picture_link(settings: Settings, sha256: str) -> str:
    """The full link to a picture: for Label Studio and for people."""
    return settings.hub_url + picture_path(settings, sha256)


def mac_is_right(settings: Settings, sha256: str, mac: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(picture_mac(settings, sha256).encode(), mac.encode())
