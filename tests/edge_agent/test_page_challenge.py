"""Challenges over the page: known parts are marked and told NG, the page says what came of it, none runs unnoticed."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from edge_agent.agent import Agent
from edge_agent.inspecting import Active
from edge_agent.page import PageServer
from edge_agent.page.records import RECORDS_NAME, Records
from edge_agent.page.trial import Result
from edge_agent.runtime import OnnxRuntime
from edge_agent.signals.port import clean_ok
from edge_agent.signals.several import Several
from edge_agent.trigger.asked import Asked
from edge_agent.wires import Wires
from edge_agent.wiring import Page
from inspection.contracts import AgentState, Mode, Purpose
from tests.edge_agent.helpers import STATION, FakeHub, bundle, config, picture
from tests.edge_agent.test_loop import Line
from tests.edge_agent.test_page import HOSTILE, Stage, line_of, loaded, serving, state_of, until
from tests.edge_agent.test_page_trial import plan
from tests.edge_agent.test_page_trigger import Endless

PIN = "2468"
GOOD, BAD, DOUBT = picture(1), picture(2, scratch=255), picture(3, scratch=181)


def test_the_part_after_the_last_known_one_is_production(tmp_path: Path) -> None:
    """No part too many is marked, and none of them is in the yield."""
    stage = Stage(tmp_path)
    stage.board.challenges.start(plan("NG", "OK"), STATION, stage.active)
    with serving(stage) as client:
        shown = [stage.show(BAD, "c1"), stage.show(GOOD, "c2"), stage.show(GOOD, "p1")]
        state = state_of(client)
    assert [v.purpose.value for v in shown] == ["challenge", "challenge", "production"]
    assert not clean_ok(shown[1])
    assert (state["today"]["ok"], state["today"]["ng"], state["today"]["challenge"]) == (1, 0, 2)


# -- over the page ----------------------------------------------------------------------------------------------------


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    made = Stage(tmp_path)
    made.board.alive()
    return made


@pytest.fixture
def client(stage: Stage, tmp_path: Path) -> Iterator[httpx.Client]:
    """A person who knows the PIN."""
    (tmp_path / "pin").write_text(f"{PIN}\n")
    with serving(stage, pin_file=str(tmp_path / "pin")) as browser:
        browser.headers["X-Escapement-Pin"] = PIN
        yield browser


def start(client: httpx.Client, *expected: str, **how: Any) -> httpx.Response:
    return client.post("/challenge", json={"parts": [{"expected": e} for e in expected], **how})


def test_the_page_leads_through_and_says_what_came_of_it(stage: Stage, client: httpx.Client) -> None:
    """Which part is next, then how many were caught, in words."""
    assert start(client, "NG", "NG", "OK").status_code == 200
    state = state_of(client)
    assert (state["challenge"]["step"], state["challenge"]["about"]) == ("show part 1 of 3", "known-bad, expected NG")
    assert "CHALLENGE RUNNING: show part 1 of 3" in state["banners"][0]["text"]
    assert state["headline"]["word"] == "CHALLENGE"
    stage.show(BAD, "c1")
    stage.show(None, "c2", fault="dark")
    state = state_of(client)
    assert state["challenge"]["step"] == "show part 2 of 3 again"
    assert state["headline"]["hollow"]
    stage.show(DOUBT, "c2")
    stage.show(GOOD, "c3")
    state = state_of(client)
    assert not state["challenge"]["running"]
    assert state["challenge"]["trial"]["conclusion"] == "The station catches them."
    assert state["challenge"]["trial"]["result"] == "Caught 2 of 2 known-bad parts. Passed 1 of 1 known-good parts."
    assert state["banners"] == []


def test_a_miss_is_said_loudly_and_by_name(stage: Stage, client: httpx.Client) -> None:
    """Which part got through, and what to do now."""
    parts = [{"expected": "NG", "name": "rim scratch"}, {"expected": "NG", "name": HOSTILE}]
    client.post("/challenge", json={"parts": parts})
    stage.show(BAD, "c1")
    stage.show(GOOD, "c2")
    trial = state_of(client)["challenge"]["trial"]
    assert "Stop the line" in trial["conclusion"]
    assert trial["result"] == f"Caught 1 of 2 known-bad parts. MISSED: part 2 ({HOSTILE})."


def test_the_result_outlives_the_agent(stage: Stage, client: httpx.Client, tmp_path: Path) -> None:
    """It is on the disk a second later; the next process shows it, and that another bundle makes it old."""
    start(client, "NG")
    stage.show(BAD, "c1")
    until((tmp_path / RECORDS_NAME).exists)
    record = json.loads(until(lambda: (tmp_path / RECORDS_NAME).read_text()))
    assert (record["outcome"], record["steps"][0]["result"]) == ("passed", "caught")
    assert record["bundle_digest"] == loaded().digest
    later = Stage(tmp_path)
    with serving(later) as other:
        line = line_of(state_of(other), "Challenge")
        assert line["level"] == "good"
        assert line["short"].startswith("passed, ")
        later.active, later.state = Active(None, Mode.JUDGE), AgentState.HOLD
        line = line_of(state_of(other), "Challenge")
        assert line["level"] == "warn"
        assert "has not been challenged" in line["text"]


def test_a_cancelled_one_hides_no_result(stage: Stage, client: httpx.Client) -> None:
    """The last one that was gone through counts."""
    start(client, "NG")
    stage.show(GOOD, "c1")
    start(client, "NG", "NG")
    assert client.delete("/challenge").status_code == 200
    state = state_of(client)
    assert state["challenge"]["trial"]["outcome"] == "ended_early"
    until(lambda: line_of(state_of(client), "Challenge")["level"] == "bad")
    assert "FAILED" in line_of(state_of(client), "Challenge")["short"]


def test_a_result_that_cannot_be_written_is_said_and_written_later(
    stage: Stage, client: httpx.Client, tmp_path: Path
) -> None:
    """A full disk loses no challenge."""
    (tmp_path / RECORDS_NAME).mkdir()
    start(client, "NG")
    stage.show(BAD, "c1")
    until(lambda: [one for one in state_of(client)["lines"] if "cannot be written" in one["text"]])
    (tmp_path / RECORDS_NAME).rmdir()
    until((tmp_path / RECORDS_NAME).exists)


def test_an_agent_that_stops_ends_its_challenge(tmp_path: Path) -> None:
    """It is written down as ended early."""
    stage = Stage(tmp_path)
    server = PageServer(Page(port=0), stage.board, stage.facts)
    stage.board.challenges.start(plan("NG"), STATION, stage.active)
    server.stop()
    record = json.loads((tmp_path / RECORDS_NAME).read_text())
    assert (record["outcome"], record["why"]) == ("ended_early", "the agent stopped")
    assert stage.board.purpose is Purpose.PRODUCTION


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/challenge"), ("POST", "/challenge/show"), ("DELETE", "/challenge")]
)
def test_without_a_pin_nothing_can_be_changed(stage: Stage, method: str, path: str) -> None:
    """403 read only, whatever is sent; the page is told to show no buttons."""
    with serving(stage) as client:
        for pin in ({}, {"X-Escapement-Pin": ""}, {"X-Escapement-Pin": "None"}):
            answer = client.request(method, path, json={"parts": [{"expected": "NG"}]}, headers=pin)
            assert answer.status_code == 403
            assert "read only" in answer.json()["error"]
        assert not state_of(client)["may_change"]
    assert stage.board.challenges.running is None


def test_a_wrong_pin_changes_nothing_and_slows_guessing_down(stage: Stage, client: httpx.Client) -> None:
    """After three wrong ones even the right one must wait."""
    del client.headers["X-Escapement-Pin"]
    assert start(client, "NG").status_code == 401
    for wrong in ("0000", "24680", "2468\u00e9"):
        header = {"X-Escapement-Pin": wrong.encode("latin-1")}
        assert client.post("/challenge", json={"parts": [{"expected": "NG"}]}, headers=header).status_code == 403
    client.headers["X-Escapement-Pin"] = PIN
    answer = start(client, "NG")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
    assert stage.board.challenges.running is None
    until(lambda: start(client, "NG").status_code == 200)


def test_a_page_of_another_site_cannot_start_one(stage: Stage, client: httpx.Client) -> None:
    """Not even with the PIN."""
    answer = client.post("/challenge", json={"parts": [{"expected": "NG"}]}, headers={"Origin": "http://evil.example"})
    assert answer.status_code == 403
    assert stage.board.challenges.running is None


def test_what_is_no_plan_is_refused(stage: Stage, client: httpx.Client) -> None:
    """In words; a plan while one runs is a conflict."""
    assert start(client, "OK").status_code == 400
    assert start(client, *["NG"] * 51).status_code == 400
    assert client.post("/challenge", json={"parts": [{"expected": "NG", "name": "x" * 81}]}).status_code == 400
    assert start(client, *["NG"] * 50).status_code == 200
    assert start(client, "NG").status_code == 409
    assert client.post("/challenge/show").status_code == 200


# -- with a whole agent -----------------------------------------------------------------------------------------------


def test_a_challenge_through_a_whole_agent(tmp_path: Path, hub: FakeHub) -> None:
    """Known parts are marked in the journal, the line hears NG for all of them, and production goes on after the last.

    Every passed part of the line is audited here, and no known one.
    """
    hub.assign(1, bundle(), audit_share=1.0)
    agent = Agent(tmp_path, config(hub.authority.root), "boot", hub)
    stage, asked, line, stop = Stage(tmp_path), Asked(), Line(tmp_path), threading.Event()
    (tmp_path / "pin").write_text(PIN)
    signal, watchers = Several([asked, line]), [stage.board]
    running = threading.Thread(
        target=lambda: agent.run(Endless(), Wires(asked, signal), OnnxRuntime, stop, max_triggers=None, watchers=watchers)
    )
    running.start()
    try:
        with serving(stage, asked, pin_file=str(tmp_path / "pin")) as client:
            until(lambda: stage.board.moves)
            client.headers["X-Escapement-Pin"] = PIN
            for part in ("p1", "p2"):
                client.post("/trigger", json={"part": part})
            assert start(client, "NG", "OK", "NG", "NG").status_code == 200
            for part in ("c1", "c2", "c3", "c4", "p3", "p4"):
                client.post("/trigger", json={"part": part})
            trial = state_of(client)["challenge"]["trial"]
    finally:
        stop.set()
        running.join(30)
        agent.close()
    assert trial["result"].startswith("Caught 2 of 3 known-bad parts. MISSED: part 4.")
    assert line.told == [(part, part in ("p2", "p4")) for part in ("p1", "p2", "c1", "c2", "c3", "c4", "p3", "p4")]
    purposes = {v.part: v.purpose for v in hub.verdicts.values()}
    assert {part for part, purpose in purposes.items() if purpose is Purpose.CHALLENGE} == {"c1", "c2", "c3", "c4"}
    audited = {note.verdict_id for note in hub.notes if note.why == "audit"}
    assert {v.part for v in hub.verdicts.values() if v.id in audited} == {"p2", "p4"}
    last = Records(tmp_path / RECORDS_NAME).last()
    assert last is not None
    assert [step.result for step in last.steps] == [Result.CAUGHT, Result.PASSED, Result.CAUGHT, Result.MISSED]
