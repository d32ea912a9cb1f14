"""Nothing is signed that gate 2 has not passed."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from inspection.errors import UsageError
from inspection.release.gate import Answer, GateAnswer
from inspection.settings import Settings, load_settings
from inspection.stages import deploy
from inspection.stages.candidate import Candidate, candidate_of_bundle, folder_of, load_candidate
from inspection.store.session import Store


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a fresh state folder."""
    return load_settings(tmp_path / "state", {})


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    """An empty store."""
    with Store.open(settings.database_url, settings.blob_url) as opened:
        yield opened


def candidate(settings: Settings, gate_2: GateAnswer | None, run: str = "run-1", bundle: str = "ab" * 32) -> Candidate:
    """A candidate with a bundle and this answer."""
    return Candidate(
        folder=folder_of(settings, run),
        product="lid",
        snapshot="0" * 64,
        run_id=run,
        started_at=datetime.now(UTC),
        bundle=bundle,
        gate_2=gate_2,
    ).save()


@pytest.mark.parametrize("answer", [None, Answer.FAIL, Answer.INSUFFICIENT])
def test_a_bundle_that_gate_2_did_not_pass_gets_no_signature(
    settings: Settings, store: Store, answer: Answer | None
) -> None:
    """Not asked, FAIL and INSUFFICIENT alike."""
    gate_2 = None if answer is None else GateAnswer(answer=answer, why="why", checks=[])
    with pytest.raises(UsageError, match="is not signed"):
        deploy.sign(settings, store, candidate(settings, gate_2))


def test_a_candidate_is_read_back_as_it_was_written(settings: Settings) -> None:
    """Any stage can be run again by another process."""
    written = candidate(settings, GateAnswer(answer=Answer.PASS, why="why", checks=[]))
    assert load_candidate(settings, "run-1") == written


def test_the_beginning_of_a_digest_names_a_bundle_only_when_it_is_unique(settings: Settings) -> None:
    """Two bundles that begin alike are not guessed between."""
    first = candidate(settings, None, "run-1", "ab" * 32)
    candidate(settings, None, "run-2", "ac" * 32)
    assert candidate_of_bundle(settings, "ab") == first
    with pytest.raises(UsageError, match="2 bundles begin with"):
        candidate_of_bundle(settings, "a")
    with pytest.raises(UsageError, match="0 bundles begin with"):
        candidate_of_bundle(settings, "ff")


def test_a_candidate_nobody_made_is_told_with_those_there_are(settings: Settings) -> None:
    """The message helps to find the right name."""
    candidate(settings, None)
    with pytest.raises(UsageError, match="run-1"):
        load_candidate(settings, "nobody")
