"""Who may talk to the hub."""

import httpx
import pytest

from inspection.hub.auth import token_digest
from inspection.hub.throttle import Throttle
from inspection.settings import Settings
from inspection.store.session import Store
from inspection.store.tables import DeviceRow
from tests.hub.helpers import Line, enrol, report, verdict


def test_enrolment_gives_a_token_the_product_and_whom_to_believe(
    anyone: httpx.Client, settings: Settings, store: Store
) -> None:
    """The token is kept as its digest only, and the trust root holds public keys."""
    enrolment = enrol(anyone, settings, "cam-7", "press-2")
    assert (enrolment.product, enrolment.station) == ("lid", "press-2")
    assert enrolment.poll_seconds == settings.agent_poll_seconds
    assert all("PUBLIC KEY" in key.pem for key in [*enrolment.trust.release, *enrolment.trust.fleet])
    with store.begin(read_only=True) as session:
        row = session.get_one(DeviceRow, "cam-7")
    assert row.token_sha256 == token_digest(enrolment.token)


def test_enrolling_again_makes_the_old_token_worthless(anyone: httpx.Client, settings: Settings) -> None:
    """A device that was replaced cannot go on with its old secret."""
    old = Line(anyone, enrol(anyone, settings, "cam-1", "press-1").token)
    new = Line(anyone, enrol(anyone, settings, "cam-1", "press-1").token)
    assert old.call("GET", "/v1/assignment").status_code == 401
    assert new.call("GET", "/v1/assignment").status_code == 204


def test_an_unknown_station_is_answered_with_the_known_ones(anyone: httpx.Client, settings: Settings) -> None:
    """A mistyped station costs one look, not a search."""
    code = settings.secrets.enrolment_code.get_secret_value()
    answer = anyone.post("/v1/enrol", json={"code": code, "device": "cam-1", "station": "pres-1"})
    assert answer.status_code == 404
    assert "press-1, press-2" in answer.json()["detail"]["message"]


def test_a_wrong_code_learns_nothing_and_is_slowed_down(anyone: httpx.Client, settings: Settings) -> None:
    """Five wrong codes, then even the right one must wait."""
    wrong = {"code": "guess", "device": "cam-1", "station": "no-such"}
    assert [anyone.post("/v1/enrol", json=wrong).status_code for _ in range(6)] == [403] * 5 + [429]
    right = wrong | {"code": settings.secrets.enrolment_code.get_secret_value(), "station": "press-1"}
    answer = anyone.post("/v1/enrol", json=right)
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0


def test_the_throttle_forgets_after_its_window() -> None:
    """An operator who mistyped may try again a minute later; other addresses were never blocked."""
    now = [0.0]
    throttle = Throttle(per_address=2, for_all=3, window_seconds=60, clock=lambda: now[0])
    throttle.note_wrong("a")
    throttle.note_wrong("a")
    assert throttle.wait_seconds("a") == 60
    assert throttle.wait_seconds("b") == 0
    throttle.note_wrong("b")
    assert throttle.wait_seconds("c") == 60, "many addresses together are one attack"
    now[0] = 60.0
    assert throttle.wait_seconds("a") == 0


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wrong", "Basic Y2FtOmNhbQ==", "bearer \u00fc"])
def test_nothing_is_open_without_a_token(anyone: httpx.Client, authorization: str) -> None:
    """Every device address asks for a token before it reads anything."""
    headers = {"Authorization": authorization.encode("latin-1")}
    target = "/v1/targets/" + "0" * 64
    calls = [
        ("POST", "/v1/verdicts"),
        ("PUT", "/v1/pictures/" + "0" * 64 + "?verdict=v&why=ng"),
        ("GET", "/v1/assignment"),
        ("POST", "/v1/report"),
        ("GET", target),
        ("GET", target + "/envelope"),
    ]
    for method, path in calls:
        answer = anyone.request(method, path, headers=headers, content=b"" if method != "GET" else None)
        assert answer.status_code == 401, path
        assert "enrol" in answer.json()["detail"]


def test_a_device_speaks_for_itself_only(line: Line, store: Store) -> None:
    """Verdicts and reports of another device are refused, and nothing of the batch is kept."""
    foreign = verdict(2, device="cam-2", id="cam-2-b1-2")
    answer = line.call("POST", "/v1/verdicts", content=b"[" + verdict(1).canonical() + b"," + foreign.canonical() + b"]")
    assert answer.status_code == 403
    assert "cam-2-b1-2" in answer.json()["detail"]["message"]
    assert line.call("POST", "/v1/report", content=report(device="cam-2").canonical()).status_code == 403
    assert [receipt.new for receipt in line.send(verdict(1))] == [True]
