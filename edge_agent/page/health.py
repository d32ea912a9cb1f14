"""Is this station fit to judge? For load balancers, probes and people with `curl`. Pure."""

from edge_agent.page.board import Board
from edge_agent.page.snapshot import Snapshot
from edge_agent.page.words import camera_line, span
from inspection.contracts import AgentState, Mode


def reasons(board: Board, now: Snapshot) -> list[str]:
    """Why it is not, in words; empty when it is."""
    found = []
    silent = board.silent_seconds
    if silent is None:
        found.append("loop: the station does not inspect yet")
    elif not board.moves:
        found.append(f"loop: the inspection has not moved for {span(silent)}")
    if not now.camera.get("ok"):
        found.append(f"camera: {camera_line(now.camera, None).text}")
    if not now.line.closes:
        found.append(f"ledger: {now.line.text}")
    if now.state is AgentState.HOLD and now.active.mode is not Mode.COLLECT:
        found.append("bundle: HOLD, no verified bundle")
    return found
