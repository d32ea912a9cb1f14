"""The station's page, over a real server: it shows what is, at once, and never an old OK."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from edge_agent.bundle import open_bundle
from edge_agent.camera import Frame
from edge_agent.errors import DeviceError
from edge_agent.inspecting import Active, Identity, Inspected, Loaded, inspect
from edge_agent.ledger import LedgerLine
from edge_agent.page import Board, Facts, PageServer
from edge_agent.page.facts import Health
from edge_agent.runtime import OnnxRuntime
from edge_agent.shelf import Installed
from edge_agent.trigger.asked import Asked
from edge_agent.wiring import Page
from inspection.contracts import AgentState, Ledger, Mode, Region, Verdict
from tests.edge_agent.helpers import DEVICE, PRODUCT, STATION, Image, bundle, picture

WAIT_SECONDS = 30.0
HOSTILE = "<script>alert(1)</script>"


@cache
def loaded() -> Loaded:
    """The tiny model, ready to judge."""
    opened = open_bundle(bundle())
    return Loaded(opened, opened.recipe, OnnxRuntime(opened.model, opened.manifest))


class Stage:
    """An agent by hand: every fact is an attribute, every part is inspected by the real model."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic, trigger: str = "http") -> None:
        self.board = Board(clock=clock)
        self.counters: dict[str, int] = {"triggers": 0}
        self.ledger = Ledger()
        self.line = LedgerLine(True, "ledger closes: 0 triggers")
        self.camera: Mapping[str, object] = {"kind": "fake", "ok": True, "delivered": 0}
        self.active = Active(loaded(), Mode.JUDGE)
        self.state = AgentState.RUNNING
        self.problem: str | None = None
        self.failures: list[str] = []
        self.connections: dict[str, Health] = {}
        self.contact: float | None = None
        self.broken: set[str] = set()
        self.who = Identity(DEVICE, STATION, PRODUCT, "boot")
        self.facts = self._facts(folder, trigger)
        self._sequence = 0

    def _facts(self, folder: Path, trigger: str) -> Facts:
        return Facts(
            who=self.who,
            state_folder=folder,
            counters=lambda: self._ask("counters"),
            ledger=lambda: self._ask("ledger"),
            ledger_line=lambda: self._ask("line"),
            camera=lambda: self._ask("camera"),
            active=lambda: self.active,
            state=lambda: self.state,
            installed=lambda: Installed(seen_serial=7),
            problem=lambda: self.problem,
            pictures_waiting=lambda: 0,
            free_disk_bytes=lambda: 5_000_000_000,
            failures=lambda: self.failures,
            connections=lambda: self.connections,
            hub_contact=lambda: self.contact,
            hub="http://hub:8470",
            hub_every_seconds=30.0,
            trigger=trigger,
            takt_seconds=0.5,
        )

    def _ask(self, name: str) -> Any:
        if name in self.broken:
            raise DeviceError(f"{name} is broken; check the disk")
        return getattr(self, name)

    def inspected(self, image: Image | None, part: str, **frame: Any) -> tuple[Frame, Inspected]:
        """What the loop does, up to the journal."""
        self._sequence += 1
        taken = Frame(image, part, **frame)
        return taken, inspect(taken, self.active, self.who, self._sequence, purpose=self.board.purpose)

    def show(self, image: Image | None, part: str, **frame: Any) -> Verdict:
        """One part, all the way; the pulse beats."""
        taken, inspected = self.inspected(image, part, **frame)
        self.counters = {**self.counters, "triggers": self.counters["triggers"] + 1}
        name = inspected.verdict.decision.value
        self.counters[name] = self.counters.get(name, 0) + 1
        self.board.seen(taken, inspected)
        self.board.alive()
        return inspected.verdict


@contextlib.contextmanager
def serving(stage: Stage, asked: Asked | None = None, **settings: Any) -> Iterator[httpx.Client]:
    """The page on a free port, and a browser without a screen."""
    before = set(threading.enumerate())
    server = PageServer(Page(port=0, **settings), stage.board, stage.facts, asked)
    server.start()
    try:
        port = until(lambda: server.port)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_SECONDS) as client:
            yield client
    finally:
        server.stop()
    assert not [t.name for t in set(threading.enumerate()) - before if t.name.startswith("page")]


def until(look: Callable[[], Any]) -> Any:
    """What ``look`` finds, as soon as it is true."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)
    return found


def events(response: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and content of each server-sent event."""
    name = "message"
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))
            name = "message"


def next_state(stream: Iterator[tuple[str, dict[str, Any]]], fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first state that fits."""
    deadline = time.monotonic() + WAIT_SECONDS
    for name, content in stream:
        if name == "message" and fits(content["state"]):
            return dict(content["state"])
        assert time.monotonic() < deadline, "no such state came"
    raise AssertionError("the stream ended")


def state_of(client: httpx.Client) -> dict[str, Any]:
    """The state now."""
    return dict(client.get("/state").json())


def line_of(state: dict[str, Any], name: str) -> dict[str, str]:
    """One of the facts."""
    return next(line for line in state["lines"] if line["name"] == name)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """A station whose loop goes round."""
    made = Stage(tmp_path)
    made.board.alive()
    return made


# -- what is shown ----------------------------------------------------------------------------------------------------


def test_a_verdict_appears_without_asking_again(stage: Stage) -> None:
    """The stream brings the state, and a new one with each part."""
    with serving(stage) as client, client.stream("GET", "/events") as response:
        stream = events(response)
        assert next_state(stream, lambda s: True)["headline"]["word"] == "READY"
        stage.show(picture(1), "A1", lot="L9")
        state = next_state(stream, lambda s: s["last"] is not None)
        assert (state["headline"]["word"], state["last"]["part"], state["last"]["lot"]) == ("OK", "A1", "L9")
        stage.show(picture(2, scratch=255), "A2")
        state = next_state(stream, lambda s: s["last"]["part"] == "A2")
        assert (state["headline"]["kind"], state["headline"]["hollow"]) == ("ng", False)
        assert [one["decision"] for one in state["history"]] == ["OK", "NG"]


def test_a_quiet_stream_still_beats(stage: Stage) -> None:
    """A browser that hears nothing for some seconds knows that it has lost the agent."""
    with serving(stage) as client, client.stream("GET", "/events") as response:
        name, content = next((n, c) for n, c in events(response) if n == "beat")
        assert name == "beat"
        assert content["clock"] >= content["made"]


def test_an_ng_says_where_and_why(stage: Stage) -> None:
    """Boxes in pixels of the frame, the map's area, the reason in words."""
    stage.show(picture(2, scratch=255), "bad")
    with serving(stage) as client:
        last = state_of(client)["last"]
    assert last["why"] == "scratch, score 1.00 (NG from 0.70)"
    assert (last["width"], last["height"], last["map"]) == (64, 48, [0, 0, 64, 48])
    box = last["boxes"][0]
    assert box["x"] < 20 < box["x"] + box["width"]
    assert box["y"] < 12 < box["y"] + box["height"]


def test_the_map_lies_over_the_recipes_region(stage: Stage) -> None:
    """It covers what was inspected, not the whole frame; and nothing when another recipe came since."""
    cropped = loaded().recipe.model_copy(update={"region": Region(x=8, y=4, width=40, height=32)})
    stage.active = Active(replace(loaded(), recipe=cropped), Mode.JUDGE)
    stage.show(picture(2, scratch=255), "bad")
    with serving(stage) as client:
        assert state_of(client)["last"]["map"] == [8, 4, 40, 32]
        stage.active = Active(loaded(), Mode.JUDGE)
        assert state_of(client)["last"]["map"] is None


def test_pictures_are_made_small_and_belong_to_their_part(stage: Stage) -> None:
    """The last part and the last that was not OK have pictures; the one before them has none any more."""
    first = stage.show(picture(1, size=(1500, 3000)), "first")
    with serving(stage) as client:
        answer = client.get(f"/picture/{first.id}.jpg")
        shown = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
        assert answer.headers["content-type"] == "image/jpeg"
        assert shown.shape == (640, 1280, 3)
        bad = stage.show(picture(2, scratch=255), "bad")
        good = stage.show(picture(3), "good")
        assert client.get(f"/picture/{first.id}.jpg").status_code == 404
        assert client.get(f"/picture/{bad.id}.jpg").status_code == 200
        assert client.get(f"/picture/{good.id}.jpg").status_code == 200
        heat = cv2.imdecode(np.frombuffer(client.get(f"/map/{bad.id}.png").content, np.uint8), cv2.IMREAD_UNCHANGED)
        assert heat.shape == (256, 256, 4)
        assert heat[..., 3].max() > 100
        assert heat[..., 3].min() == 0


def test_a_part_without_a_picture_is_shown_all_the_same(stage: Stage) -> None:
    """ERROR with its reason; no picture to fetch; a broken frame is no broken page."""
    lost = stage.show(None, "lost", fault="camera gave no frame for 2 s; check cable and power")
    odd = stage.show(np.zeros((4, 4, 2), np.uint8), "odd", fault="frame of shape (4, 4, 2) is no picture")
    with serving(stage) as client:
        assert client.get(f"/picture/{lost.id}.jpg").status_code == 404
        assert client.get(f"/picture/{odd.id}.jpg").status_code == 404
        last = state_of(client)["last"]
    assert (last["decision"], last["width"], last["why"]) == ("ERROR", 0, "frame of shape (4, 4, 2) is no picture")


@pytest.mark.parametrize(
    ("change", "kind", "banner", "reason"),
    [
        (
            {"state": AgentState.HOLD, "active": Active(None, Mode.JUDGE)},
            "hold",
            "hold",
            "bundle: HOLD, no verified bundle",
        ),
        ({"active": Active(None, Mode.COLLECT), "state": AgentState.HOLD}, "ok", "collect", None),
        ({"active": Active(loaded(), Mode.SHADOW)}, "ok", "shadow", None),
        ({"camera": {"ok": False, "last_fault": "cable is out"}}, "camera", None, "camera: cable is out"),
        ({"line": LedgerLine(False, "2 missing")}, "ok", "ledger", "ledger: 2 missing"),
    ],
)
def test_what_nobody_may_overlook_is_said(
    stage: Stage, change: dict[str, Any], kind: str, banner: str | None, reason: str | None
) -> None:
    """HOLD, collect, shadow, a lost camera and a red ledger: in large letters, and in the answer to probes."""
    stage.show(picture(1), "good")
    for name, value in change.items():
        setattr(stage, name, value)
    with serving(stage) as client:
        state, health = state_of(client), client.get("/healthz")
    assert state["headline"]["kind"] == kind
    assert [one["kind"] for one in state["banners"]] == ([banner] if banner else [])
    assert health.json() == {"ok": reason is None, "reasons": [reason] if reason else []}
    assert health.status_code == (200 if reason is None else 503)


@pytest.mark.parametrize("mode", [Mode.SHADOW, Mode.COLLECT])
def test_what_the_line_was_not_told_is_hollow(stage: Stage, mode: Mode) -> None:
    """An OK of practice never looks like one that counts."""
    stage.active = Active(loaded(), mode)
    stage.show(picture(1), "good")
    with serving(stage) as client:
        headline = state_of(client)["headline"]
    assert headline["hollow"]
    assert "the line was told NG" in headline["note"]


def test_a_loop_that_hangs_takes_the_last_ok_with_it(tmp_path: Path) -> None:
    """Some seconds without a pulse, and the page says STOPPED, however good the last part was."""
    now = 100.0
    stage = Stage(tmp_path, clock=lambda: now)
    with serving(stage) as client:
        assert state_of(client)["headline"]["word"] == "STARTING"
        assert client.get("/healthz").status_code == 503
        stage.show(picture(1), "good")
        assert state_of(client)["headline"]["word"] == "OK"
        now += 5.1
        assert state_of(client)["headline"]["word"] == "STOPPED"
        assert client.get("/healthz").json()["reasons"] == ["loop: the inspection has not moved for 5 s"]
        stage.board.alive()
        assert state_of(client)["headline"]["word"] == "OK"
