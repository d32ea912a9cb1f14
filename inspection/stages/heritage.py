"""What the champion left: its trained networks, kept in the blob store so that any machine can start from them, and the
snapshot it was made from, which no class may silently be missing from afterwards."""

import json
from dataclasses import dataclass
from pathlib import Path

from inspection.contracts import Recipe
from inspection.data.losses import losses
from inspection.data.snapshot_record import Snapshot
from inspection.data.snapshots import load_snapshot
from inspection.errors import IntegrityError
from inspection.release.promotions import champion
from inspection.stages.candidate import Candidate
from inspection.stages.material import Material
from inspection.store.session import Store
from inspection.store.tables import PromotionRow, SnapshotRow

FILES = ("weights.safetensors", "trained.json")
RECIPE, RUN = "recipe.json", "run.txt"


@dataclass(frozen=True)
class ChampionTeacher:
    """The champion's teacher: its MLflow run, the folder of its `Trained`, and the recipe it was judged with."""

    run_id: str
    trained: Path
    recipe: Recipe


def keep_teacher(store: Store, candidate: Candidate, recipe: Recipe) -> None:
    """Put the candidate's teacher and the recipe it was judged with into the blob store under the run's id."""
    _keep(store, candidate, "teacher", candidate.teacher)
    store.blobs.put_at(f"trained/{candidate.run_id}/teacher/{RECIPE}", recipe.canonical())


def keep_student(store: Store, candidate: Candidate) -> None:
    """Put the candidate's student into the blob store under the run's id."""
    _keep(store, candidate, "student", candidate.student)


def _keep(store: Store, candidate: Candidate, role: str, folder: Path) -> None:
    for name in FILES:
        store.blobs.put_at(f"trained/{candidate.run_id}/{role}/{name}", (folder / "trained" / name).read_bytes())


def promotion_of_champion(store: Store, product: str) -> PromotionRow | None:
    """The champion's row in the ledger; None before the first."""
    with store.begin(read_only=True) as session:
        row = champion(session, product)
        if row is not None:
            session.expunge(row)
        return row


def _network_of_champion(store: Store, product: str) -> PromotionRow | None:
    """The champion's row where its networks were kept: a cold start trained none."""
    row = promotion_of_champion(store, product)
    return None if row is None or load_snapshot(store, row.snapshot).cold_start else row


def snapshot_of_champion(store: Store, product: str) -> Snapshot | None:
    """What the champion was made from; None before the first."""
    row = promotion_of_champion(store, product)
    return None if row is None else load_snapshot(store, row.snapshot)


def check_losses(material: Material) -> None:
    """Raise IntegrityError when a class of the champion's lost over half of its pictures and nobody said it is meant.

    A snapshot of fewer labels than the champion's was asked for by name: it is an earlier one, and nothing was lost.
    """
    former = snapshot_of_champion(material.store, material.product.name)
    if former is None or _is_earlier(material.store, material.snapshot, former):
        return
    found = losses(former, material.snapshot, material.product.retrain.may_shrink_to)
    if not found:
        return
    meant: dict[str, int] = {}
    for loss in found:
        meant[loss.name] = min(loss.now, meant.get(loss.name, loss.now))
    raise IntegrityError(
        f"nothing is trained: since the champion's snapshot {former.digest[:12]} of {former.product!r}, "
        f"{'; '.join(map(str, found))}. A model that forgets a class lets it through: mend its labels, or, if it is "
        f'meant, say so in the product: "retrain": {{"may_shrink_to": {json.dumps(meant)}}}'
    )


def _is_earlier(store: Store, snapshot: Snapshot, other: Snapshot) -> bool:
    with store.begin(read_only=True) as session:
        one, two = session.get(SnapshotRow, snapshot.digest), session.get(SnapshotRow, other.digest)
        return one is not None and two is not None and one.last_label_id < two.last_label_id


def _fetch(store: Store, run_id: str, role: str, folder: Path) -> Path:
    place = folder / f"champion-{role}"
    place.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (place / name).write_bytes(store.blobs.get(f"trained/{run_id}/{role}/{name}"))
    return place


def teacher_of_champion(material: Material, folder: Path) -> ChampionTeacher | None:
    """The champion's teacher, fetched below ``folder``; None before the first champion, and of a cold start, which has
    none: gate 2 compares with its bundle. MissingPictureError when its files are gone: a gate that compares with nobody
    must not look like one that compared."""
    row = _network_of_champion(material.store, material.product.name)
    if row is None:
        return None
    place = _fetch(material.store, row.run_id, "teacher", folder)
    (place / RECIPE).write_bytes(material.store.blobs.get(f"trained/{row.run_id}/teacher/{RECIPE}"))
    (place / RUN).write_text(row.run_id)
    return fetched_teacher(folder)


def fetched_teacher(folder: Path) -> ChampionTeacher | None:
    """What `teacher_of_champion` fetched below ``folder``, whoever is the champion today; None where nothing was."""
    place = folder / "champion-teacher"
    if not (place / RUN).is_file():
        return None
    return ChampionTeacher((place / RUN).read_text(), place, Recipe.parse((place / RECIPE).read_bytes()))


def fetched_student(folder: Path) -> Path | None:
    """The same of `student_of_champion`."""
    place = folder / "champion-student"
    return place if place.is_dir() else None


def student_of_champion(material: Material, folder: Path) -> Path | None:
    """Folder of the champion's student, fetched below ``folder``; None before the first champion, and of a cold start."""
    row = _network_of_champion(material.store, material.product.name)
    return None if row is None else _fetch(material.store, row.run_id, "student", folder)
