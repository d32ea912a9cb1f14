"""Nothing is signed that both gates have not passed."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from inspection.contracts import sha256_hex
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


BUNDLE = b"a bundle"


def said(answer: Answer | None) -> GateAnswer | None:
    """A gate's answer, or none."""
    return None if answer is None else GateAnswer(answer=answer, why="why", checks=[])


PASSED = said(Answer.PASS)


def candidate(
    settings: Settings,
    gate_2: GateAnswer | None,
    run: str = "run-1",
    bundle: str = sha256_hex(BUNDLE),
    gate_1: GateAnswer | None = PASSED,
) -> Candidate:
    """A candidate with a bundle and these answers."""
    folder_of(settings, run).mkdir(parents=True)
    made = Candidate(
        folder=folder_of(settings, run),
        product="lid",
        snapshot="0" * 64,
        run_id=run,
        started_at=datetime.now(UTC),
        bundle=bundle,
        gate_1=gate_1,
        gate_2=gate_2,
    ).save()
    made.bundle_file.write_bytes(BUNDLE)
    return made


@pytest.mark.parametrize("answer", [None, Answer.FAIL, Answer.INSUFFICIENT])
def test_a_bundle_that_gate_2_did_not_pass_gets_no_signature(
    settings: Settings, store: Store, answer: Answer | None
) -> None:
    """Not asked, FAIL and INSUFFICIENT alike."""
    with pytest.raises(UsageError, match="is not signed: gate 2"):
        deploy.sign(settings, store, candidate(settings, said(answer)))


@pytest.mark.parametrize("answer", [None, Answer.FAIL, Answer.INSUFFICIENT])
def test_a_bundle_whose_teacher_gate_1_did_not_pass_gets_no_signature(
    settings: Settings, store: Store, answer: Answer | None
) -> None:
    """Built by hand, and passed by gate 2 alone."""
    with pytest.raises(UsageError, match="is not signed: gate 1"):
        deploy.sign(settings, store, candidate(settings, said(Answer.PASS), gate_1=said(answer)))


def test_a_file_that_was_not_judged_gets_no_signature(settings: Settings, store: Store) -> None:
    """Built anew and killed before its record was written, say."""
    judged = candidate(settings, said(Answer.PASS))
    judged.bundle_file.write_bytes(b"another one")
    with pytest.raises(UsageError, match=r"bundle.tar is not bundle .*: run `inspection build-bundle run-1` again"):
        deploy.sign(settings, store, judged)
    judged.bundle_file.unlink()
    with pytest.raises(UsageError, match="is gone from"):
        deploy.sign(settings, store, judged)


def test_a_bundle_that_mlflow_does_not_know_goes_nowhere(settings: Settings, store: Store) -> None:
    """The ledger would name a version that is not there."""
    with pytest.raises(UsageError, match="has no version in MLflow"):
        deploy.start(settings, store, candidate(settings, said(Answer.PASS)), who="test", why="test")


def test_a_candidate_is_read_back_as_it_was_written(settings: Settings) -> None:
    """Any stage can be run again by another process."""
    written = candidate(settings, said(Answer.PASS))
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
