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
    """Write the `map_score` down beside the candidate's record."""
    found, path = map_score(material, judged), _file_of(candidate)
    if found is None:
        path.unlink(missing_ok=True)
    else:
        path.write_text(found.model_dump_json(indent=1))
    return found


def map_score(material: Material, judged: Sequence[tuple[Verdict, str]]) -> MapScore | None:
    """The bundle's regions against the golden parts' boxes; None where nobody drew any.

    A verdict's ``sequence`` is the place of its picture among the golden examples, counted from 1.
    """
    examples = material.of(Split.GOLDEN)
    return score_verdicts([(v, examples[v.sequence - 1]) for v, _ in judged], material.product.good_class)


def map_score_of(candidate: Candidate) -> MapScore | None:
    """The score that was written down, if any."""
    path = _file_of(candidate)
    return MapScore.model_validate_json(path.read_bytes()) if path.is_file() else None
