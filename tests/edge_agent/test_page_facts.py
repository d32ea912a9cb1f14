"""Counts and facts: in words on the page, in numbers for Prometheus, at their worst when they cannot be had."""

import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from inspection.contracts import Ledger
from tests.edge_agent.helpers import picture
from tests.edge_agent.test_page import Stage, line_of, loaded, serving, state_of


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """A station whose loop goes round."""
    made = Stage(tmp_path)
    made.board.alive()
    return made


def test_a_fact_that_cannot_be_had_is_the_worst_it_could_be(stage: Stage) -> None:
    """A journal that cannot be read is a red ledger and a trouble in words, not a page that is gone."""
    stage.show(picture(1), "good")
    with serving(stage) as client:
        stage.broken = {"counters", "ledger", "line", "camera"}
        state = state_of(client)
        assert state["headline"]["kind"] == "camera"
        assert line_of(state, "Ledger")["level"] == "bad"
        assert "counters is broken; check the disk" in line_of(state, "Troubles")["text"]
        assert client.get("/healthz").status_code == 503
        assert client.get("/metrics").status_code == 200
        stage.broken = set()
        assert state_of(client)["headline"]["word"] == "OK"


def test_counts_and_yield_follow_the_journal(stage: Stage) -> None:
    """First-pass yield is OK of all judged; an ERROR is no judgement."""
    stage.counters |= {"OK": 1000, "triggers": 1000}  # of earlier days
    with serving(stage) as client:
        for seed in range(3):
            stage.show(picture(seed), f"g{seed}")
        stage.show(picture(1, scratch=255), "bad")
        stage.show(None, "lost", fault="dark")
        stage.counters["missed"] = 2
        state = state_of(client)
    for counts in (state["today"], state["start"]):
        assert (counts["ok"], counts["ng"], counts["error"], counts["missed"], counts["yield"]) == (3, 1, 1, 2, 0.75)


def test_the_facts_are_there_in_words(stage: Stage) -> None:
    """Camera, hub, outbox, bundle, cycle, connections, troubles: each with a level and a sentence."""
    stage.show(picture(1), "good")
    stage.ledger = Ledger(stored=3, pending=3)
    stage.contact = time.monotonic() - 7200
    stage.connections = {"PLC": {"ok": False, "last_fault": "no answer from 10.0.0.5"}}
    stage.problem = "bundle abc was refused"
    with serving(stage) as client:
        state = state_of(client)
    assert line_of(state, "Hub") | {"text": ""} == {"name": "Hub", "level": "warn", "short": "silent for 2 h", "text": ""}
    assert line_of(state, "Outbox")["short"] == "3 wait"
    assert "5.0 GB of disk are free" in line_of(state, "Outbox")["text"]
    assert line_of(state, "Ledger")["text"].endswith("3 stored = 0 uploaded + 3 pending + 0 evicted")
    assert line_of(state, "Bundle")["short"] == "tiny 1 r1"
    assert "of 500 ms" in line_of(state, "Cycle")["short"]
    assert line_of(state, "PLC") == {
        "name": "PLC",
        "level": "bad",
        "short": "not connected",
        "text": "no answer from 10.0.0.5",
    }
    assert line_of(state, "Troubles")["text"] == "bundle abc was refused"


def test_a_ledger_that_breaks_is_red_before_the_next_check(stage: Stage) -> None:
    """The line of the minute says green, the rows say otherwise: red."""
    stage.ledger = Ledger(triggers=2, ok=1)
    with serving(stage) as client:
        line = line_of(state_of(client), "Ledger")
        assert client.get("/healthz").status_code == 503
    assert (line["level"], "1 missing" in line["text"]) == ("bad", True)


def test_prometheus_reads_the_same_facts(stage: Stage) -> None:
    """Names with units, one sample each, and the process itself."""
    stage.show(picture(1), "good")
    stage.show(picture(1, scratch=255), "bad")
    stage.counters |= {"late": 4, "missed": 1}
    with serving(stage) as client:
        answer = client.get("/metrics")
        client.get("/metrics")
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert found["escapement_triggers_total",] == 2
    assert found["escapement_verdicts_total", "NG"] == 1
    assert found["escapement_verdicts_total", "INCONCLUSIVE"] == 0
    assert (found["escapement_late_total",], found["escapement_missed_total",]) == (4, 1)
    assert found["escapement_ledger_closes",] == 1
    assert found["escapement_cycle_seconds_count",] == 2
    assert found["escapement_cycle_seconds_bucket", "+Inf"] == 2
    assert found["escapement_free_disk_bytes",] == 5e9
    assert found["escapement_up",] == 1
    assert found["process_resident_memory_bytes",] > 1e6
    assert found["process_open_fds",] > 3
    info = next(key for key in found if key[0] == "escapement_bundle_info")
    assert {loaded().digest, "judge", "tiny 1"} <= set(info)
