"""The hub as a folder that is carried by hand."""

from pathlib import Path

import pytest

from edge_agent.errors import HubError
from edge_agent.transport import DirectoryTransport
from inspection.contracts import PictureNote, sha256_hex
from tests.edge_agent.helpers import Authority, air_gap
from tests.edge_agent.test_journal import verdict

NOTE = PictureNote(sha256=sha256_hex(b"x"), length=1, verdict_id="v", why="ng")


def test_a_medium_that_is_not_plugged_in_gives_no_receipts(tmp_path: Path) -> None:
    """What the folder where it is to be mounted took would lie on this computer's own disk, and reach nobody."""
    transport = DirectoryTransport(tmp_path)
    for ask in (
        lambda: transport.send_verdicts([verdict(1).canonical()]),
        lambda: transport.send_picture(NOTE, b"x"),
        transport.assignment,
    ):
        with pytest.raises(HubError, match="is the medium plugged in"):
            ask()
    assert list(tmp_path.iterdir()) == []


def test_a_prepared_medium_takes_what_is_sent(tmp_path: Path, authority: Authority) -> None:
    """Its receipts are digests of what lies on it."""
    air_gap(tmp_path, authority)
    transport = DirectoryTransport(tmp_path)
    (receipt,) = transport.send_verdicts([verdict(1).canonical()])
    assert receipt.sha256 == verdict(1).digest
    assert transport.send_picture(NOTE, b"x").sha256 == NOTE.sha256
    assert transport.assignment() is None
