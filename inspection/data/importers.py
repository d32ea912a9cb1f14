"""Import of a directory of labelled pictures: class-per-folder, or with a ``labels.csv``; with a ``boxes.csv``, where the
defects are.

Invariants: nothing outside the directory is read; a table nobody can read and a missing file stop the import before it
begins; a bad picture is counted in quarantine and reported, the others come in; importing twice changes nothing.
"""

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from inspection.contracts import Box, sha256_hex
from inspection.data.intake import check_or_quarantine, keep_picture, read_or_quarantine
from inspection.data.labels import IMPORT, Answer, name_of, record_answers
from inspection.data.pictures import PictureInfo
from inspection.data.product import Product
from inspection.data.products import load_product
from inspection.data.snapshot_record import Split
from inspection.errors import PictureError, UsageError
from inspection.store.session import Store
from inspection.store.tables import utc_now

LABELS_FILE = "labels.csv"
BOXES_FILE = "boxes.csv"
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
_SPLITS = {
    "": None,
    "train": Split.TRAIN,
    "val": Split.VALIDATION,
    "valid": Split.VALIDATION,
    "validation": Split.VALIDATION,
    "test": Split.GOLDEN,
    "golden": Split.GOLDEN,
}
_CORNERS = ("x0", "y0", "x1", "y1")
_LONGEST_NAME = 200  # characters of a part or group in the store
_AT_ONCE = 100


@dataclass(frozen=True)
class Item:
    """A picture file with its label. ``name`` is its path inside the directory, behind the directory's own name;
    ``boxes`` are in picture pixels, and empty where nobody drew any."""

    path: Path
    name: str
    label: str
    split: Split | None
    group: str
    part: str
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class ImportReport:
    """What an import did. ``refused`` has (name, code) of each bad picture; ``mixed_groups`` are groups whose rows name
    several splits: a group is never divided, so a snapshot puts it on the side that most of its pictures name."""

    new: int
    known: int
    labels: int
    refused: list[tuple[str, str]] = field(default_factory=list)
    mixed_groups: list[str] = field(default_factory=list)

    @property
    def refused_by_code(self) -> dict[str, int]:
        """How many were refused, by reason."""
        return dict(Counter(code for _, code in self.refused))


def read_directory(directory: Path, good: str) -> list[Item]:
    """The pictures of a directory, sorted by name: rows of its ``labels.csv``, else one class per sub-folder.

    ``labels.csv`` has the columns path and label, and may have split (train, val, test), group and part; no others count.
    Sub-folders may be grouped by split first (``train/ok/1.png``). Without part, every file is a part; without group,
    every part is a group. ``boxes.csv`` beside them (path, x0, y0, x1, y1, label; pixels) says where defects are; a label
    in it that is none of the directory's classes only describes, and the picture's own class counts. Raises UsageError
    when ``good`` is no class, a file is missing, a path leads outside, a table cannot be read, a box makes no sense, or
    there is nothing to import.
    """
    root = directory.resolve()
    if not root.is_dir():
        raise UsageError(f"{directory} is not a directory; give one with a folder per class, or with a {LABELS_FILE}")
    try:
        items = _from_csv(root) if (root / LABELS_FILE).is_file() else _from_folders(root)
    except OSError as error:
        raise _unreadable(error.filename or directory, error) from error
    classes = sorted({item.label for item in items})
    if not items:
        endings = ", ".join(sorted(_SUFFIXES))
        raise UsageError(f"{directory} holds no pictures ({endings}) in folders per class and no {LABELS_FILE}")
    if good not in classes:
        raise UsageError(f"{directory} has no class {good!r}; its classes are {', '.join(classes)}: name the good one")
    _check_parts(items)
    items = _with_boxes(root, items, good) if (root / BOXES_FILE).is_file() else items
    return sorted(items, key=lambda item: item.name)


def other_endings(directory: Path) -> dict[str, int]:
    """How many files of folders per class `read_directory` does not look at, by ending (hidden files aside).

    None where a ``labels.csv`` names the files.
    """
    if (directory / LABELS_FILE).is_file():
        return {}
    files = (path for path in directory.glob("*/**/*") if path.is_file() and not path.name.startswith("."))
    return dict(sorted(Counter(p.suffix.lower() for p in files if p.suffix.lower() not in _SUFFIXES).items()))


def classes_of(items: Sequence[Item], good: str) -> list[str]:
    """The classes of the items, the good one first, the others by name."""
    return [good, *sorted({item.label for item in items} - {good})]


def import_items(
    store: Store,
    product: str | Product,
    items: Sequence[Item],
    *,
    max_bytes: int,
    max_pixels: int,
    labelled: bool = True,
    station: str | None = None,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> ImportReport:
    """Bring pictures in, and (unless ``labelled`` is False) their labels as answers of origin "import".

    ``progress(done, total)`` is called after every batch. Raises UsageError for an unknown product, LabelError when the
    product lacks a class, both before anything is written.
    """
    task = _Import(store, name_of(product), max_bytes, max_pixels, labelled, station)
    task.check(items)
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(items), _AT_ONCE):
            batch = items[start : start + _AT_ONCE]
            task.keep(list(zip(batch, pool.map(task.look, batch), strict=True)))
            if progress:
                progress(start + len(batch), len(items))
    return ImportReport(task.new, task.known, task.labels, task.refused, _mixed_groups(items))


@dataclass
class _Import:
    """One import on its way: where to, within which limits, and the counts so far."""

    store: Store
    product: str
    max_bytes: int
    max_pixels: int
    labelled: bool
    station: str | None
    new: int = 0
    known: int = 0
    labels: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)

    def check(self, items: Sequence[Item]) -> None:
        with self.store.begin(read_only=True) as session:
            classes = load_product(session, self.product).classes
        strange = sorted({item.label for item in items} - set(classes)) if self.labelled else []
        if strange:
            raise UsageError(
                f"product {self.product!r} has no class {', '.join(strange)}; its classes are {', '.join(classes)}: "
                "add them to the product, or correct the labels"
            )

    def look(self, item: Item) -> PictureInfo | PictureError:
        """Check a picture and keep its bytes; in a thread. A refusal is counted in quarantine and returned."""
        origin, limits = f"import {item.name}", {"max_bytes": self.max_bytes, "max_pixels": self.max_pixels}
        try:
            data = read_or_quarantine(self.store, item.path, origin=origin, max_bytes=self.max_bytes)
            info = check_or_quarantine(self.store, data, product=self.product, origin=origin, **limits)
        except PictureError as error:
            return error
        self.store.blobs.put("pictures", data)
        return info

    def keep(self, looked: Sequence[tuple[Item, PictureInfo | PictureError]]) -> None:
        """One transaction for a batch: rows of its pictures, then its labels."""
        answers = []
        with self.store.begin() as session:
            for item, info in looked:
                if isinstance(info, PictureError):
                    self.refused.append((item.name, info.code))
                    continue
                new = keep_picture(
                    session,
                    info,
                    product=self.product,
                    part=item.part,
                    group=item.group,
                    station=self.station,
                    source="import",
                    fixed_split=item.split and item.split.value,
                )
                self.new += new
                self.known += not new
                answers.append(self._answer(item, info))
            if self.labelled:
                self.labels += record_answers(session, answers).new

    def _answer(self, item: Item, info: PictureInfo) -> Answer:
        return Answer(
            product=self.product,
            picture=info.sha256,
            origin=IMPORT,
            # By product, file and picture: a label corrected in labels.csv supersedes. A picture moved to another class
            # folder is another file: its two labels contradict, and snapshots leave it out until one is retracted.
            origin_id=sha256_hex(f"{self.product}\0{item.name}\0{info.sha256}".encode()),
            label=item.label,
            boxes=item.boxes,
            annotator="import",
            made_at=utc_now(),
            body={"path": item.name},
        )


def _from_csv(root: Path) -> list[Item]:
    table = root / LABELS_FILE
    items = [_item_of(root, row, line) for line, row in _rows(table, ("path", "label"))]
    missing = [item.name for item in items if not item.path.is_file()]
    if missing:
        raise UsageError(f"{table} names {len(missing)} files that are not there, the first {missing[0]}")
    return items


def _rows(table: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Line number and values of each row. Raises UsageError for a table that is no CSV in UTF-8, or lacks a column."""
    try:
        data = table.read_bytes()
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
    except OSError as error:
        raise _unreadable(table, error) from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        said = f"line {line} of {table} is not UTF-8 text (byte {data[error.start]:#04x} in it)"
        raise UsageError(f"{said}: save the table as UTF-8 (spreadsheets call it 'CSV UTF-8')") from error
    try:
        if lacking := [name for name in needed if name not in (reader.fieldnames or ())]:
            raise UsageError(f"{table} lacks the columns {', '.join(lacking)}; {', '.join(needed)} are needed")
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise UsageError(f"line {reader.line_num + 1} of {table} is not CSV: {error}; look for a stray quote") from error


def _unreadable(place: object, error: OSError) -> UsageError:
    return UsageError(f"{place} cannot be read: {error.strerror or error}; look at its owner and disk")


def _item_of(root: Path, row: dict[str, str | None], line: int) -> Item:
    path, label = (row["path"] or "").strip(), (row["label"] or "").strip()
    if not path or not label:
        raise UsageError(f"line {line} of {root / LABELS_FILE} has no path or no label")
    split = (row.get("split") or "").strip().lower()
    if split not in _SPLITS:
        known = ", ".join(s for s in _SPLITS if s)
        raise UsageError(f"line {line} of {root / LABELS_FILE}: split {split!r} is none of {known}")
    return _item(root, root / path, label, _SPLITS[split], row.get("group"), row.get("part"))


def _from_folders(root: Path) -> list[Item]:
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if folders and all(folder.name.lower() in _SPLITS for folder in folders):
        return [item for folder in folders for item in _classes_in(root, folder, _SPLITS[folder.name.lower()])]
    return _classes_in(root, root, None)


def _classes_in(root: Path, folder: Path, split: Split | None) -> list[Item]:
    return [
        _item(root, path, path.relative_to(folder).parts[0], split, None, None)
        for path in sorted(folder.glob("*/**/*"))
        if path.suffix.lower() in _SUFFIXES and path.is_file()
    ]


def _item(root: Path, path: Path, label: str, split: Split | None, group: str | None, part: str | None) -> Item:
    real = path.resolve()
    if not real.is_relative_to(root):
        raise UsageError(f"{path} leads out of {root}: only pictures inside the directory are imported")
    name = f"{root.name}/{path.relative_to(root).as_posix()}"
    own_part = _short((part or "").strip() or name)
    return Item(real, name, label, split, _short((group or "").strip() or own_part), own_part)


def _with_boxes(root: Path, items: Sequence[Item], good: str) -> list[Item]:
    table, classes = root / BOXES_FILE, {item.label for item in items}
    by_path = {item.path: item for item in items}
    boxes: dict[Path, list[Box]] = defaultdict(list)
    for line, row in _rows(table, ("path", *_CORNERS)):
        item = by_path.get((root / (row["path"] or "")).resolve())
        if item is None or item.label == good:
            what = "no picture of this directory" if item is None else f"a picture of the good class {good!r}"
            raise UsageError(f"line {line} of {table} is about {row['path']!r}, {what}: correct or remove it")
        named = (row.get("label") or "").strip()
        boxes[item.path].append(_box_of(row, named if named in classes else item.label, f"line {line} of {table}"))
    return [replace(item, boxes=tuple(boxes[item.path])) for item in items]


def _box_of(row: dict[str, str | None], label: str, where: str) -> Box:
    try:
        x0, y0, x1, y1 = (float(row[name] or "") for name in _CORNERS)
        return Box(x=x0, y=y0, width=x1 - x0, height=y1 - y0, label=label)
    except ValueError as error:
        raise UsageError(f"{where} is no box: x0, y0, x1, y1 are pixels, with x0 < x1 and y0 < y1 ({error})") from error


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 17]}-{sha256_hex(name.encode())[:16]}"


def _check_parts(items: Sequence[Item]) -> None:
    groups: dict[str, str] = {}
    for item in items:
        first = groups.setdefault(item.part, item.group)
        if first != item.group:
            raise UsageError(f"part {item.part!r} is in the groups {first!r} and {item.group!r}: a part is never divided")


def _mixed_groups(items: Sequence[Item]) -> list[str]:
    splits: dict[str, set[Split | None]] = defaultdict(set)
    for item in items:
        splits[item.group].add(item.split)
    return sorted(group for group, named in splits.items() if len(named) > 1)
