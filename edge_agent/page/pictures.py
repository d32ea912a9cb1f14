"""The pictures of the parts on the board, encoded when somebody asks and remembered while they are on it.

Invariants: nothing is encoded twice, nor for nobody; the picture of a part that is no longer on the board is not here.
"""

from edge_agent.page.board import Board, Sight
from edge_agent.page.render import heat, jpeg


class Pictures:
    """Pictures by verdict id. For one thread."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._known: dict[tuple[str, str], bytes | None] = {}

    def picture(self, verdict_id: str) -> bytes | None:
        """A JPEG, or None when another part has come since or there was no picture."""
        return self._get("picture", verdict_id)

    def heat(self, verdict_id: str) -> bytes | None:
        """The defect map as a PNG to lay over its region, or None."""
        return self._get("heat", verdict_id)

    def _get(self, kind: str, verdict_id: str) -> bytes | None:
        shown = {sight.verdict.id: sight for sight in (self._board.last, self._board.reject) if sight is not None}
        self._known = {key: data for key, data in self._known.items() if key[1] in shown}
        sight = shown.get(verdict_id)
        if sight is None:
            return None
        if (kind, verdict_id) not in self._known:
            self._known[kind, verdict_id] = _encode(kind, sight)
        return self._known[kind, verdict_id]


def _encode(kind: str, sight: Sight) -> bytes | None:
    return jpeg(sight.frame.image) if kind == "picture" else heat(sight.inspected.defect_map)
