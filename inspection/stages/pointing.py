"""Where a candidate's bundle points: the score of its regions on the golden parts, beside the candidate's record.

Invariant: the file is there exactly when golden parts have boxes and gate 2 was asked.
"""

from collections.abc import Sequence
from pathlib import Path

from inspection.contracts import Verdict
from inspection.data.snapshot_record import Split
from inspection.release.map_score import MapScore, score_verdicts
from inspection.stages.candidate import Candidate
from inspection.stages.material import Material


def _file_of(candidate: Candidate) -> Path:
    return candidate.folder / "map-score.json"


def keep_map_score(material: Material, candidate: Candidate, judged: Sequence[tuple[Verdict, str]]) -> MapScore | None:
    """Score the bundle's regions against the golden parts' boxes and write the score down; None where nobody drew any.

    A verdict's ``sequence`` is the place of its picture among the golden examples, counted from 1.
    """
    examples, path = material.of(Split.GOLDEN), _file_of(candidate)
    pairs = [(verdict, examples[verdict.sequence - 1]) for verdict, _ in judged]
    found = score_verdicts(pairs, material.product.good_class)
    if found is None:
        path.unlink(missing_ok=True)
    else:
        path.write_text(found.model_dump_json(indent=1))
    return found


def map_score_of(candidate: Candidate) -> MapScore | None:
    """The score that was written down, if any."""
    path = _file_of(candidate)
    return MapScore.model_validate_json(path.read_bytes()) if path.is_file() else None
