"""What machines watch: health and metrics."""

import shutil
from datetime import timedelta
from pathlib import Path

import httpx

from inspection.contracts import Ledger
from inspection.store.session import Store
from inspection.store.tables import DeviceRow, utc_now
from tests.hub.helpers import Line, png, report, verdict


def test_a_well_hub_says_so(anyone: httpx.Client) -> None:
    """200, no problem, and how much disk is left."""
    answer = anyone.get("/healthz")
    assert answer.status_code == 200
    assert answer.json()["problems"] == [] or answer.json()["status"] == "low disk"
    assert answer.json()["free_disk_bytes"] > 0


def test_a_hub_that_cannot_keep_pictures_says_so(anyone: httpx.Client, store: Store) -> None:
    """503 in words when a file stands where the folder should be; 200 again when it is gone."""
    folder = Path(store.blobs.url.removeprefix("file://"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.write_text("in the way")
    answer = anyone.get("/healthz")
    assert answer.status_code == 503
    assert "blobs" in answer.json()["problems"][0]
    folder.unlink()
    assert anyone.get("/healthz").status_code == 200


def _value(text: str, name: str) -> float:
    return float(next(line.split()[-1] for line in text.splitlines() if line.startswith(name)))


def test_metrics_count_what_came(line: Line, store: Store) -> None:
    """Verdicts once, repeats apart, pictures, refusals, and devices that went silent."""
    owner = verdict(1)
    line.send(owner)
    line.send(owner)
    line.upload(owner, png())
    line.upload(owner, b"no picture")
    line.call("POST", "/v1/report", content=report(ledger=Ledger(triggers=1)).canonical())
    with store.begin() as session:
        session.get_one(DeviceRow, "cam-1").last_seen = utc_now() - timedelta(hours=1)
    text = line.client.get("/metrics").text
    assert _value(text, 'escapement_hub_verdicts_total{decision="NG"}') == 1
    assert _value(text, "escapement_hub_verdict_repeats_total") == 1
    assert _value(text, "escapement_hub_pictures_total") == 1
    assert _value(text, 'escapement_hub_refused_total{kind="picture"}') == 1
    assert _value(text, "escapement_hub_devices ") == 1
    assert _value(text, "escapement_hub_devices_silent") == 1
    assert _value(text, "escapement_hub_ledgers_open") == 1


def test_metrics_name_routes_and_never_what_was_asked(anyone: httpx.Client) -> None:
    """A label per address would be a leak and, with a million parts, a flood."""
    anyone.get("/parts/SECRET-PART")
    anyone.get("/no/such/page")
    text = anyone.get("/metrics").text
    assert "SECRET-PART" not in text
    assert "such" not in text
    assert 'route="/parts/{part:path}",status="401"' in text
