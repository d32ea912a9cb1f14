"""A store as it looks after a few days on the line: for the pages' tests and screenshots."""

import random
from datetime import timedelta
from typing import Any

import cv2
import numpy as np
from sqlalchemy.orm import Session

from inspection.contracts import (
    ANY_DEFECT,
    Band,
    Box,
    Ledger,
    Limits,
    Manifest,
    Origin,
    Promise,
    Recipe,
    SelfTestCase,
    Verdict,
    sha256_hex,
)
from inspection.contracts.fleet import AgentState
from inspection.contracts.manifest import InputDescription
from inspection.data.intake import accept_picture, accept_verdicts
from inspection.store.session import Store
from inspection.store.tables import (
    BundleRow,
    DeviceRow,
    GateDecisionRow,
    LabelRow,
    PromotionRow,
    QuarantineRow,
    RolloutRow,
    TaskRow,
    VerdictRow,
    utc_now,
)
from tests.hub.helpers import report, verdict

OLD, NEW, RECIPE = (sha256_hex(name) for name in (b"old bundle", b"new bundle", b"recipe"))
SNAPSHOT = sha256_hex(b"snapshot")
HOSTILE = "<script>alert(1)</script>/../x&\"'"


def part_picture(seed: int) -> bytes:
    """A brushed plate with a scratch at (180, 120), 160 x 24 pixels."""
    draw = np.random.default_rng(seed)
    plate = np.clip(draw.normal(150, 9, (360, 1)) + draw.normal(0, 6, (360, 480)), 0, 255).astype(np.uint8)
    plate = cv2.GaussianBlur(plate, (31, 1), 0)
    cv2.circle(plate, (90, 90), 28, 60, -1, cv2.LINE_AA)
    cv2.circle(plate, (390, 270), 28, 60, -1, cv2.LINE_AA)
    cv2.line(plate, (186, 126), (334, 138), 225, 2, cv2.LINE_AA)
    return cv2.imencode(".png", cv2.cvtColor(plate, cv2.COLOR_GRAY2BGR))[1].tobytes()


def seed_line(store: Store, *, judged: int = 240, audited: int = 40, escaped: int = 3) -> None:
    """Two stations of product `lid`: verdicts, labelled pictures, releases, a rollout, quarantine."""
    with store.begin() as session:
        _seed_devices(session)
        _seed_releases(session)
    draw = random.Random(7)
    for station in ("press-1", "press-2"):
        verdicts = [_verdict(draw, station, number) for number in range(1, judged + 1)]
        with store.begin() as session:
            accept_verdicts(session, verdicts)
        passed = [one for one in verdicts if one.decision == "OK"][:audited]
        rejected = [one for one in verdicts if one.decision == "NG"][-12:]
        for index, one in enumerate(passed):
            label_one(store, one, "audit", "dent" if index < escaped else "good")
        for index, one in enumerate(rejected):
            label_one(store, one, "disagree", "good" if index < 2 else "scratch")


def hostile_part(store: Store) -> Verdict:
    """A part whose id, defect class and region are markup."""
    one = verdict(
        9001,
        part=HOSTILE,
        defect_class="<img src=x onerror=alert(1)>",
        scores={"good": 0.1, "<b>scratch": 0.9},
        regions=[Box(x=1, y=2, width=30, height=20, label="<svg/onload=alert(1)>", score=0.9)],
        reason="</p><script>alert(2)</script>",
    )
    with store.begin() as session:
        accept_verdicts(session, [one])
    keep_picture(store, one, "ng")
    return one


def _verdict(draw: random.Random, station: str, number: int) -> Verdict:
    defect = draw.random() < 0.08
    score = draw.uniform(0.65, 0.99) if defect else draw.betavariate(1.5, 14) * 0.7
    device = {"press-1": "cam-1", "press-2": "cam-2"}[station]
    region = Box(x=180, y=118, width=160, height=28, label="scratch", score=round(score, 3))
    return verdict(
        number,
        id=f"{device}-b1-{number}",
        device=device,
        station=station,
        part=f"{station[-1]}-{number:05d}",
        lot="L2231",
        captured_at=utc_now() - timedelta(seconds=20 * (300 - number)),
        decision="NG" if defect else "OK",
        defect_class="scratch" if defect else None,
        scores={"good": 1 - score, "scratch": score * 0.9, "dent": score * 0.1},
        regions=[region] if defect else [],
        bundle_digest=NEW if station == "press-1" and number > 150 else OLD,
        recipe_digest=RECIPE,
        timings_ms={"capture": 4.2, "infer": 2.3, "judge": 0.1, "journal": 0.4},
    )


def keep_picture(store: Store, one: Verdict, why: str) -> str:
    """Keep a picture for a verdict as the hub does."""
    data = part_picture(int(sha256_hex(one.id.encode())[:8], 16))
    limits = {"max_bytes": 10**7, "max_pixels": 10**7}
    origin: dict[str, Any] = {"product": one.product, "part": one.part, "group": one.part, "station": one.station}
    kept = accept_picture(store, data, **origin, source="agent", **limits)
    with store.begin() as session:
        row = session.get_one(VerdictRow, one.id)
        row.picture, row.picture_why = kept.sha256, why
    return kept.sha256


def label_one(store: Store, one: Verdict, why: str, label: str | None, *, picture_why: str | None = None) -> None:
    """A picture, a task for it, and an operator's answer."""
    picture = keep_picture(store, one, picture_why or {"audit": "audit", "disagree": "ng"}[why])
    with store.begin() as session:
        session.add(TaskRow(product=one.product, picture=picture, why=why, verdict=one.id))
        session.add(
            LabelRow(
                product=one.product,
                picture=picture,
                kind="answer",
                label=label,
                origin="label_studio",
                origin_id=f"a-{one.id}",
                annotator="operator@escapement.example",
                made_at=utc_now(),
            )
        )


def _seed_devices(session: Session) -> None:
    counted = Ledger(triggers=243, ok=220, ng=20, missed=3, stored=60, uploaded=58, pending=2)
    open_ledger = counted.model_copy(update={"triggers": 244})
    reports = {
        "cam-1": report(bundle_digest=NEW, recipe_digest=RECIPE, ledger=counted, verdicts_by_digest={OLD: 150, NEW: 90}),
        "cam-2": report(device="cam-2", station="press-2", bundle_digest=OLD, ledger=open_ledger, state=AgentState.HOLD),
    }
    now = utc_now()
    for (name, one), seen in zip(reports.items(), (now, now - timedelta(minutes=7)), strict=True):
        body = one.model_copy(update={"last_error": "camera gave no frame for 2 s"} if name == "cam-2" else {})
        row = DeviceRow(name=name, station=one.station, token_sha256=sha256_hex(name.encode()), last_seen=seen)
        row.report = body.model_dump(mode="json")
        session.add(row)


def _manifest(version: int) -> Manifest:
    return Manifest(
        name="lid",
        version=version,
        product="lid",
        created_at=utc_now(),
        files=[],
        backbone="mobilenetv4_conv_small",
        precision="int8",
        input=InputDescription(model_height=224, model_width=224),
        classes=["good", "scratch", "dent"],
        good_class="good",
        self_test=[SelfTestCase(path="selftest/0.png", decision="OK", scores={"good": 0.9}, tolerance=0.05)],
        origin=Origin(mlflow_run_id="4f6b0f2c9a3e4d0f8f5a1b2c3d4e5f60", snapshot_id=SNAPSHOT),
    )


def _recipe() -> Recipe:
    words = "with 95% confidence at most 2.0% of defective parts score below 0.400 and pass"
    return Recipe(
        product="lid",
        version=1,
        good_class="good",
        thresholds={ANY_DEFECT: Band(inconclusive=0.4, ng=0.6)},
        limits=Limits(escape_rate=0.02, overkill_rate=0.05),
        promise=Promise(edge=0.4, escape_rate=0.02, confidence=0.95, misses=0, parts=154, within_limit=True, words=words),
    )


def _seed_releases(session: Session) -> None:
    for version, digest in ((1, OLD), (2, NEW), (1, RECIPE)):
        kind = "recipe" if digest == RECIPE else "bundle"
        body = (_recipe() if kind == "recipe" else _manifest(version)).model_dump(mode="json")
        row = BundleRow(sha256=digest, kind=kind, product="lid", name="lid", version=version, length=9_000_000, body=body)
        row.envelope = b"{}"
        session.add(row)
    session.flush()
    for serial, (bundle, role) in enumerate(((OLD, "champion"), (NEW, "challenger"), (NEW, "champion")), 1):
        session.add(
            PromotionRow(
                product="lid",
                serial=serial,
                role=role,
                model_version=str(1 + serial // 2),
                run_id="4f6b0f2c9a3e4d0f8f5a1b2c3d4e5f60",
                snapshot=SNAPSHOT,
                bundle=bundle,
                recipe=RECIPE,
                fencing_token=serial,
                who="flow retrain",
                why="gate 2 passed: escape at most 2.1 %, overkill at most 4.4 % on 312 golden parts",
            )
        )
    paragraphs = {
        "INSUFFICIENT": "No scratch was missed, but with 41 golden scratches the upper bound on escape is 7.0 %, above the "
        "limit of 5.0 %. 19 more defective parts are needed before this candidate can be judged.",
        "PASS": "Escape is at most 2.1 % (limit 5.0 %) and overkill at most 4.4 % (limit 10.0 %) with 95 % confidence on "
        "312 golden parts; the champion missed four parts that this candidate finds, and finds none that it misses.",
    }
    for gate, (answer, why) in enumerate(paragraphs.items(), 1):
        session.add(
            GateDecisionRow(product="lid", gate=gate, subject=NEW, snapshot=SNAPSHOT, answer=answer, why=why, body={})
        )
    groups = [["press-1"], ["press-2"]]
    session.add(RolloutRow(product="lid", bundle=NEW, recipe=RECIPE, state="running", group_index=1, groups=groups))
    for code, number in (("not_a_picture", 4), ("truncated", 2), ("verdict_conflict", 1)):
        session.add_all(QuarantineRow(code=code, detail="seeded", source="cam-9") for _ in range(number))
