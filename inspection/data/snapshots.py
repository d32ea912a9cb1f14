"""Snapshots: which labelled pictures, on which side, frozen under the digest of their own content.

Invariants: the same labels and splits give the same id; a group's side is decided once and for ever; no part, and no copy
of a picture, is on two sides; of copies with different labels none is in; what is left out is named with its reason;
every picture exists.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from inspection.data.descriptors import DESCRIPTOR_BYTES, describe
from inspection.data.labels import CurrentLabel, current_labels, last_label_id, name_of
from inspection.data.near_duplicates import Copy, Described, equal_pixels, find_copies
from inspection.data.pictures import decode_bgr
from inspection.data.product import Product
from inspection.data.products import load_product
from inspection.data.snapshot_record import RARE_CLASS, UNUSUAL, Example, Refused, Snapshot, Split
from inspection.data.splitting import Group, assign, shares
from inspection.errors import LeakError, MissingPictureError, UsageError
from inspection.store.session import Store, exclusive
from inspection.store.tables import GoldenLookRow, LabelRow, PictureRow, SnapshotRow, SplitRow

# Of two pictures that must not be on two sides the one on the lower side is refused: what judges stays.
_RANK = {Split.TRAIN: 0, Split.VALIDATION: 1, Split.GOLDEN: 2}


@dataclass(frozen=True)
class _Link:
    """Two pictures that must be on one side, and why."""

    first: str
    second: str
    reason: str
    detail: str


@dataclass
class _Material:
    """What a snapshot is made of: labelled pictures in use, those left out already, and up to which label."""

    product: Product
    pictures: dict[str, PictureRow]
    labels: dict[str, CurrentLabel]
    refused: list[Refused]
    last_label_id: int


def build_snapshot(
    store: Store, product: str | Product, *, min_per_class: int | None = None, good_only: bool = False
) -> Snapshot:
    """Freeze the current labels of a product into a snapshot and keep it; the same labels give the same one.

    ``min_per_class`` training pictures are needed of a class (default: the product's plan), else it is not learnt, and only
    its golden pictures are in: what a model cannot know escapes all the same, and gates count it;
    ``good_only``: for a cold start, so that all but the good pictures are. Raises MissingPictureError when a picture's
    bytes are gone, UsageError when fewer than two classes have enough pictures (of a cold start: when no good one is
    to learn from, or a class of the product's is called `UNUSUAL`).
    """
    with store.begin(read_only=True) as session:
        material = _gather(session, load_product(session, name_of(product)))
    _check_exist(store, material)
    described = _described(store, material)
    copies = find_copies(described)
    _leave_out(material, _contradictions(material, copies, equal_pixels(described)))
    links = _links(material, copies)
    with store.begin() as session:
        sides = _settle_sides(session, material, links)
    least = min_per_class or material.product.retrain.min_per_class
    snapshot = _compose_good(material, links, sides) if good_only else _compose(material, links, sides, least)
    _check_disjoint(snapshot, links)
    _keep(store, snapshot, material.last_label_id)
    return snapshot


def load_snapshot(store: Store, snapshot_id: str) -> Snapshot:
    """The snapshot of that id. Raises UsageError when there is none, IntegrityError when its bytes were changed."""
    try:
        return Snapshot.parse(store.blobs.get(f"snapshots/{snapshot_id}.json"))
    except MissingPictureError as error:
        raise UsageError(
            f"there is no snapshot {snapshot_id!r}: give the whole id, as MLflow shows it with a run, or build one"
        ) from error


def look_at_golden(session: Session, snapshot_id: str, who: str, why: str) -> int:
    """Record one look at a snapshot's golden set; the number of looks so far, this one included."""
    session.add(GoldenLookRow(snapshot=snapshot_id, who=who[:200], why=why[:200]))
    session.flush()
    return session.scalar(select(func.count()).where(GoldenLookRow.snapshot == snapshot_id)) or 0


def _gather(session: Session, product: Product) -> _Material:
    answered = select(LabelRow.picture).where(LabelRow.product == product.name)
    rows = session.scalars(select(PictureRow).where(PictureRow.sha256.in_(answered)))
    pictures = {row.sha256: row for row in rows}
    usable, refused = {}, []
    for sha256, label in current_labels(session, product).items():
        unusable = _unusable(label, product)
        if unusable is None:
            usable[sha256] = label
        else:
            refused.append(unusable)
    labelled = {sha256: pictures[sha256] for sha256 in usable}
    return _Material(product, labelled, usable, refused, last_label_id(session, product))


def _unusable(label: CurrentLabel, product: Product) -> Refused | None:
    if label.contradictory:
        return Refused(picture=label.picture, reason="contradictory_labels", detail="; ".join(label.said))
    if label.label is None:
        return Refused(picture=label.picture, reason="cannot_tell", detail="; ".join(label.said))
    if label.label not in product.classes:
        return Refused(picture=label.picture, reason="unknown_class", detail=f"no class {label.label!r} any more")
    return None


def _check_exist(store: Store, material: _Material) -> None:
    wanted = [f"pictures/{sha256}" for sha256 in sorted(material.pictures)]
    missing = store.blobs.missing("pictures", wanted)
    if missing:
        raise MissingPictureError(
            f"{len(missing)} of {len(wanted)} labelled pictures of {material.product.name!r} are not in "
            f"{store.blobs.url}, the first {missing[0]}: bring them back, or retract their labels (`inspection labels "
            f"retract {missing[0].rpartition('/')[2]} --product {material.product.name} --why ...`)"
        )


def _described(store: Store, material: _Material) -> list[Described]:
    return [Described(sha256, row.group, _descriptor(store, row)) for sha256, row in material.pictures.items()]


def _contradictions(material: _Material, copies: Sequence[Copy], equal: Sequence[tuple[str, str]]) -> list[Refused]:
    """Pictures that show the same and are labelled differently, both of each pair: nobody here knows which label is right.

    Within a group only equal pixels tell: two views of one part may look alike, and the defect be on one of them.
    """
    pairs = {(copy.first, copy.second): f"a copy (similarity {copy.similarity:.2f})" for copy in copies}
    pairs |= dict.fromkeys(equal, "the same pixels")
    found: dict[str, Refused] = {}
    for pair, likeness in sorted(pairs.items()):
        labels = [material.labels[sha256].label for sha256 in pair]
        if labels[0] != labels[1]:
            for mine, other, said, differs in zip(pair, pair[::-1], labels, labels[::-1], strict=True):
                detail = f"labelled {said!r}, but picture {other}, {likeness}, {differs!r}: correct the wrong one"
                found.setdefault(mine, Refused(picture=mine, reason="contradictory_labels", detail=detail))
    return list(found.values())


def _leave_out(material: _Material, refused: Sequence[Refused]) -> None:
    material.refused.extend(refused)
    for item in refused:
        del material.pictures[item.picture], material.labels[item.picture]


def _links(material: _Material, copies: Sequence[Copy]) -> list[_Link]:
    links = [
        _Link(copy.first, copy.second, "near_duplicate", f"similarity {copy.similarity:.2f}")
        for copy in copies
        if copy.first in material.pictures and copy.second in material.pictures
    ]
    by_part: dict[str, list[PictureRow]] = defaultdict(list)
    for row in material.pictures.values():
        by_part[row.part].append(row)
    for part, rows in sorted(by_part.items()):
        pairs = combinations(sorted(rows, key=lambda row: row.sha256), 2)
        links += [_Link(a.sha256, b.sha256, "same_part", f"part {part}") for a, b in pairs if a.group != b.group]
    return links


def _descriptor(store: Store, row: PictureRow) -> bytes:
    if row.descriptor is not None and len(row.descriptor) == DESCRIPTOR_BYTES:
        return row.descriptor
    return describe(decode_bgr(store.blobs.get(f"pictures/{row.sha256}")))


def _settle_sides(session: Session, material: _Material, links: Sequence[_Link]) -> dict[str, Split]:
    """All groups' sides, the new ones decided and kept."""
    name = material.product.name
    exclusive(session, f"splits/{name}")
    kept = session.execute(select(SplitRow.group, SplitRow.split).where(SplitRow.product == name))
    sides = {group: Split(split) for group, split in kept}
    pairs = [(material.pictures[link.first].group, material.pictures[link.second].group) for link in links]
    new = assign(_groups(material), pairs, sides, material.product.retrain, salt=name)
    session.add_all(SplitRow(product=name, group=group, split=side.value) for group, side in sorted(new.items()))
    return sides | new


def _groups(material: _Material) -> Iterable[Group]:
    groups: dict[str, Group] = {}
    for sha256, row in material.pictures.items():
        group = groups.setdefault(row.group, Group(row.group))
        group.classes[str(material.labels[sha256].label)] += 1
        if row.fixed_split is not None:
            group.asked[Split(row.fixed_split)] += 1
    return groups.values()


def _compose(material: _Material, links: Sequence[_Link], sides: Mapping[str, Split], least: int) -> Snapshot:
    product = material.product
    side = {sha256: sides[row.group] for sha256, row in material.pictures.items()}
    refused = {item.picture: item for item in _straddling(links, side)}
    training = Counter(
        str(label.label)
        for sha256, label in material.labels.items()
        if side[sha256] is Split.TRAIN and sha256 not in refused
    )
    classes = [name for name in product.classes if name == product.good_class or training[name] >= least]
    for sha256, label in material.labels.items():
        if label.label not in classes and side[sha256] is not Split.GOLDEN and sha256 not in refused:
            detail = f"{label.label!r} has {training[str(label.label)]} training pictures, {least} are needed"
            refused[sha256] = Refused(picture=sha256, reason=RARE_CLASS, detail=detail)
    if len(classes) < 2 or training[product.good_class] < 1:
        raise UsageError(_too_few(product, material, training, least))
    examples = [_example(material, sha256, side[sha256]) for sha256 in sorted(material.labels) if sha256 not in refused]
    left_out = sorted([*material.refused, *refused.values()], key=lambda item: (item.picture, item.reason))
    return Snapshot(
        product=product.name, good_class=product.good_class, classes=classes, examples=examples, refused=left_out
    )


def _compose_good(material: _Material, links: Sequence[_Link], sides: Mapping[str, Split]) -> Snapshot:
    product = material.product
    if UNUSUAL in product.classes:
        raise UsageError(
            f"class {UNUSUAL!r} of {product.name!r} is what a cold start calls all but good: give it another name"
        )
    side = {sha256: sides[row.group] for sha256, row in material.pictures.items()}
    refused = {item.picture: item for item in _straddling(links, side)}
    for sha256, label in material.labels.items():
        if label.label != product.good_class and sha256 not in refused:
            detail = f"labelled {label.label!r}: a cold start learns from good pictures alone"
            refused[sha256] = Refused(picture=sha256, reason="not_good", detail=detail)
    examples = [_example(material, sha256, side[sha256]) for sha256 in sorted(material.labels) if sha256 not in refused]
    if not any(e.split is Split.TRAIN for e in examples):
        raise UsageError(
            f"product {product.name!r} has no good picture to learn from: label some as {product.good_class!r}"
        )
    left_out = sorted([*material.refused, *refused.values()], key=lambda item: (item.picture, item.reason))
    classes = [product.good_class, UNUSUAL]
    return Snapshot(
        product=product.name, good_class=product.good_class, classes=classes, examples=examples, refused=left_out
    )


def _straddling(links: Sequence[_Link], side: Mapping[str, Split]) -> list[Refused]:
    """The lower picture of every link across sides, once each, with the highest and first of those it is linked with."""
    found: dict[str, tuple[int, str, _Link]] = {}
    for link in links:
        low, high = sorted((link.first, link.second), key=lambda sha256: (_RANK[side[sha256]], sha256))
        if side[low] is side[high]:
            continue
        better = (-_RANK[side[high]], high, link)
        if low not in found or better[:2] < found[low][:2]:
            found[low] = better
    return [
        Refused(picture=low, reason=link.reason, detail=f"{side[high].value} picture {high}: {link.detail}")
        for low, (_, high, link) in found.items()
    ]


def _example(material: _Material, sha256: str, side: Split) -> Example:
    row, label = material.pictures[sha256], material.labels[sha256]
    return Example(
        picture=sha256,
        label=str(label.label),
        part=row.part,
        group=row.group,
        split=side,
        station=row.station,
        boxes=label.boxes,
    )


def _too_few(product: Product, material: _Material, training: Counter[str], least: int) -> str:
    counts = ", ".join(f"{name} {training[name]}" for name in product.classes)
    share = shares(product.retrain)[Split.TRAIN]
    return (
        f"product {product.name!r} cannot be trained yet: it needs at least one good picture and {least} of a defect "
        f"class on the training side (about {share:.0%} of what is labelled); it has {counts}, from "
        f"{len(material.labels)} labelled pictures: label more"
    )


def _check_disjoint(snapshot: Snapshot, links: Sequence[_Link]) -> None:
    """The promise itself, checked on the result: one side per group, part and pair of copies."""
    side = {example.picture: example.split for example in snapshot.examples}
    for kind in ("group", "part"):
        sides: dict[str, Split] = {}
        for example in snapshot.examples:
            name = getattr(example, kind)
            if sides.setdefault(name, example.split) is not example.split:
                raise LeakError(f"{kind} {name!r} of product {snapshot.product!r} is on two sides of the split")
    for link in links:
        if link.first in side and link.second in side and side[link.first] is not side[link.second]:
            raise LeakError(f"pictures {link.first} and {link.second} ({link.reason}) are on two sides of the split")


def _keep(store: Store, snapshot: Snapshot, last_label: int) -> None:
    store.blobs.put_at(f"snapshots/{snapshot.digest}.json", snapshot.canonical())
    counts = {
        **{side.value: dict(Counter(e.label for e in snapshot.of(side))) for side in Split},
        "refused": dict(Counter(item.reason for item in snapshot.refused)),
    }
    with store.begin() as session:
        exclusive(session, f"snapshots/{snapshot.digest}")
        row = session.get(SnapshotRow, snapshot.digest)
        if row is None:
            row = SnapshotRow(id=snapshot.digest, product=snapshot.product, last_label_id=last_label, counts=counts)
            session.add(row)
        session.flush()
        newer = update(SnapshotRow).where(SnapshotRow.id == snapshot.digest, SnapshotRow.last_label_id < last_label)
        session.execute(newer.values(last_label_id=last_label))
