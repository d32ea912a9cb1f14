"""Gate 2: the bundle itself, replayed by the agent's own program on the golden parts, beside the champion's bundle."""

from inspection.contracts import sha256_hex
from inspection.data.snapshot_record import Split
from inspection.data.snapshots import look_at_golden
from inspection.release.gate import gate
from inspection.release.replay import GoldenPicture, golden_pictures, replay
from inspection.release.scorecard import Scorecard
from inspection.settings import Settings
from inspection.stages.candidate import Candidate
from inspection.stages.evidence import log_gate_2
from inspection.stages.heritage import promotion_of_champion
from inspection.stages.material import Material
from inspection.stages.pointing import keep_map_score
from inspection.stages.teach import golden_card, record_gate
from inspection.store.session import Store


def prove(settings: Settings, store: Store, candidate: Candidate, *, who: str) -> Candidate:
    """Ask gate 2 and record the answer; returns the candidate with it. Raises UsageError before `build-bundle`."""
    data, material = candidate.packed(), Material.behind(store, candidate)
    digest = sha256_hex(data)
    with store.begin() as session:
        look_at_golden(session, candidate.snapshot, who, f"gate 2 of bundle {digest[:12]}")
    pictures = golden_pictures(material.of(Split.GOLDEN), material.picture)
    judged = replay(data, pictures)
    card = golden_card(material, judged)
    theirs = _champion(material, pictures)
    answer = gate(card, theirs, material.product.limits, material.product.costs)
    record_gate(store, candidate.product, 2, digest, candidate.snapshot, answer, card)
    proved = candidate.with_(golden_2=card, champion_2=theirs, gate_2=answer)
    return log_gate_2(settings, material, proved, judged, keep_map_score(material, proved, judged))


def _champion(material: Material, pictures: list[GoldenPicture]) -> Scorecard | None:
    row = promotion_of_champion(material.store, material.product.name)
    if row is None:
        return None
    return golden_card(material, replay(material.store.blobs.get(f"targets/{row.bundle}"), pictures))
