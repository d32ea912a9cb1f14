"""Who is asking: a device by its bearer token, a person by HTTP Basic. Secrets are compared in constant time.

A token is kept as its SHA-256 only. Wrong passwords and enrolment codes are counted and slowed down.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from sqlalchemy import select

from inspection.hub.state import Hub, HubDep
from inspection.hub.throttle import Throttle
from inspection.store.tables import DeviceRow

_BASIC = HTTPBasic(realm="Escapement console", auto_error=False)


@dataclass(frozen=True)
class Caller:
    """The device a request comes from, as the store knows it."""

    device: str
    station: str


def same_secret(given: str, expected: str) -> bool:
    """Compare two texts in constant time."""
    return hmac.compare_digest(given.encode(), expected.encode())


def token_digest(token: str) -> str:
    """What is kept of a token: its SHA-256, 64 hexadecimal digits."""
    return hashlib.sha256(token.encode()).hexdigest()


def address_of(request: Request) -> str:
    """The sender's address, for slowing down guesses."""
    return request.client.host if request.client else "unknown"


def refuse_if_throttled(throttle: Throttle, address: str) -> None:
    """Raise 429 with Retry-After while ``address`` must wait."""
    if wait := throttle.wait_seconds(address):
        raise HTTPException(429, f"too many wrong tries: wait {wait} seconds", headers={"Retry-After": str(wait)})


def _unknown_token() -> HTTPException:
    return HTTPException(
        401,
        "this token is not known: enrol the device again (`edge-agent enrol`)",
        headers={"WWW-Authenticate": "Bearer"},
    )


def find_device(hub: Hub, authorization: str) -> Caller:
    """The device that owns the bearer token. Raises 401."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise _unknown_token()
    digest = token_digest(token.strip())
    columns = select(DeviceRow.name, DeviceRow.station, DeviceRow.token_sha256)
    with hub.store.begin(read_only=True) as session:
        row = session.execute(columns.where(DeviceRow.token_sha256 == digest)).one_or_none()
    if row is None or not same_secret(digest, row.token_sha256):
        raise _unknown_token()
    return Caller(row.name, row.station)


def _device(request: Request, hub: HubDep) -> Caller:
    return find_device(hub, request.headers.get("authorization", ""))


def _person(request: Request, hub: HubDep, given: Annotated[HTTPBasicCredentials | None, Depends(_BASIC)]) -> str:
    user, password = hub.settings.console_user, hub.settings.secrets.console_password.get_secret_value()
    asks = {"WWW-Authenticate": 'Basic realm="Escapement console", charset="UTF-8"'}
    if given is None:
        raise HTTPException(401, "log in with the console's user and password", headers=asks)
    address = address_of(request)
    refuse_if_throttled(hub.wrong_passwords, address)
    # Both are always compared: the time must not tell which one was wrong.
    right_user, right_password = same_secret(given.username, user), same_secret(given.password, password)
    if not (right_user and right_password):
        hub.wrong_passwords.note_wrong(address)
        raise HTTPException(401, "wrong user or password", headers=asks)
    return given.username


DeviceDep = Annotated[Caller, Depends(_device)]
PersonDep = Annotated[str, Depends(_person)]
