"""Directories of pictures: both forms, bad rows, bad pictures, and twice."""

from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import func, select

from inspection.contracts import Box
from inspection.data.importers import Item, classes_of, import_items, other_endings, read_directory
from inspection.data.labels import current_labels
from inspection.data.products import save_product
from inspection.data.snapshot_record import Split
from inspection.errors import UsageError
from inspection.store.session import Store
from inspection.store.tables import LabelRow, PictureRow, QuarantineRow
from tests.data.conftest import LIMITS, PRODUCT, encode, texture


def write(folder: Path, *names: str) -> Path:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(texture(hash(name) % 2**32), file.suffix))
    return folder


def table(folder: Path, text: str) -> Path:
    (folder / "labels.csv").write_text(text)
    return folder


def test_one_class_per_folder(tmp_path: Path) -> None:
    """The folder is the class, also of pictures deeper in it; other files do not count."""
    write(tmp_path, "ok/1.png", "ok/more/2.jpg", "dent/3.bmp")
    (tmp_path / "ok" / "notes.txt").write_text("nothing")
    items = read_directory(tmp_path, "ok")
    assert [(i.path.name, i.label, i.split) for i in items] == [
        ("3.bmp", "dent", None),
        ("1.png", "ok", None),
        ("2.jpg", "ok", None),
    ]
    assert len({i.group for i in items}) == 3
    assert classes_of(items, "ok") == ["ok", "dent"]


def test_folders_per_split_and_class(tmp_path: Path) -> None:
    """When all top folders are splits, the classes are below them."""
    write(tmp_path, "train/ok/1.png", "test/dent/2.png", "val/ok/3.png")
    found = {(i.label, i.split) for i in read_directory(tmp_path, "ok")}
    assert found == {("ok", Split.TRAIN), ("dent", Split.GOLDEN), ("ok", Split.VALIDATION)}


def test_a_table_gives_split_group_and_part(tmp_path: Path) -> None:
    """labels.csv wins over folders; its other columns do not matter."""
    write(tmp_path, "a.png", "b.png", "c.png")
    table(tmp_path, "path,label,split,group,part,mood\na.png,ok,train,g1,p1,x\nb.png,dent,test,g1,p2,y\nc.png,ok,,,,z\n")
    found = [(i.label, i.split, i.group, i.part) for i in read_directory(tmp_path, "ok")]
    own = f"{tmp_path.name}/c.png"
    assert found == [("ok", Split.TRAIN, "g1", "p1"), ("dent", Split.GOLDEN, "g1", "p2"), ("ok", None, own, own)]


BOXES = "path,x0,y0,x1,y1,label\n"


def test_boxes_say_where_defects_are(tmp_path: Path) -> None:
    """In pixels; a finer name than the directory's classes describes only, and the picture's own class counts."""
    write(tmp_path, "a.png", "b.png", "c.png")
    table(tmp_path, "path,label\na.png,ok\nb.png,dent\nc.png,dent\n")
    (tmp_path / "boxes.csv").write_text(BOXES + "b.png,1,2,4,8,dent\nb.png,5,5,6,6.5,deep dent\n")
    _, b, c = read_directory(tmp_path, "ok")
    assert b.boxes == (
        Box(x=1, y=2, width=3, height=6, label="dent"),
        Box(x=5, y=5, width=1, height=1.5, label="dent"),
    )
    assert c.boxes == ()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("z.png,1,2,4,8,dent\n", "line 2 .*'z.png', no picture of this directory"),
        ("a.png,1,2,4,8,dent\n", "line 2 .*'a.png', a picture of the good class"),
        ("b.png,4,2,1,8,dent\n", "line 2 .*no box"),
        ("b.png,1,2,4,dent\n", "line 2 .*no box"),
        ("b.png,1,2,inf,8,dent\n", "line 2 .*no box"),
        ("b.png,nan,2,4,8,dent\n", "line 2 .*no box"),
    ],
)
def test_a_box_that_makes_no_sense_is_refused_in_words(tmp_path: Path, row: str, said: str) -> None:
    """Before anything is imported, with the line."""
    write(tmp_path, "a.png", "b.png")
    table(tmp_path, "path,label\na.png,ok\nb.png,dent\n")
    (tmp_path / "boxes.csv").write_text(BOXES + row)
    with pytest.raises(UsageError, match=said):
        read_directory(tmp_path, "ok")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label\na.png,ok\n", "lacks the columns path"),
        ("path,label\na.png,ok\nb.png,ok\nc.png,ok\n", "names 2 files that are not there, the first .*b.png"),
        ("path,label\na.png,\n", "line 2"),
        ("path,label,split\na.png,ok,exam\n", "line 2.*'exam'"),
        ("path,label\na.png,dent\n", "no class 'ok'; its classes are dent"),
        ("path,label\n../outside.png,ok\n", "leads out of"),
        ("path,label\n/etc/passwd,ok\n", "leads out of"),
        ("path,label,group,part\na.png,ok,g1,p\na.png,ok,g2,p\n", "part 'p' is in the groups"),
    ],
)
def test_a_bad_table_is_refused_in_words(tmp_path: Path, text: str, said: str) -> None:
    """Before anything is imported, with the line or the file."""
    inside = tmp_path / "inside"
    write(tmp_path, "outside.png")
    write(inside, "a.png")
    with pytest.raises(UsageError, match=said):
        read_directory(table(inside, text), "ok")


@pytest.mark.parametrize("name", ["labels.csv", "boxes.csv"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("path,label\na.png,ok\nb.png,Gußfehler\n".encode("latin-1"), r"line 3 of .*{} is not UTF-8 .*CSV UTF-8"),
        ("path,label\n".encode("utf-16"), r"line 1 of .*{} is not UTF-8"),
        (b"path,label,x0,y0,x1,y1\n" + b"x" * 200_000 + b",ok,1,2,3,4\n", r"line 2 of .*{} is not CSV: field larger"),
    ],
)
def test_a_table_in_another_form_is_told_with_its_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    """What spreadsheets save by default is no traceback."""
    write(tmp_path, "ok/a.png", "dent/b.png")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=said.format(name)):
        read_directory(tmp_path, "ok")


@pytest.mark.parametrize("name", ["labels.csv", "boxes.csv"])
def test_a_table_that_cannot_be_read_is_told_by_name(tmp_path: Path, name: str) -> None:
    """A disk that fails, here by a file that answers every read with an error."""
    write(tmp_path, "ok/a.png", "dent/b.png")
    (tmp_path / name).symlink_to("/proc/self/mem")
    with pytest.raises(UsageError, match=f"{name} cannot be read"):
        read_directory(tmp_path, "ok")


def test_the_line_of_a_table_counts_empty_ones(tmp_path: Path) -> None:
    """It is the line an editor shows."""
    write(tmp_path, "a.png")
    with pytest.raises(UsageError, match="line 4 of"):
        read_directory(table(tmp_path, "path,label\n\na.png,ok\nb.png,\n"), "ok")


def test_files_with_other_endings_are_counted(tmp_path: Path) -> None:
    """Those in folders per class; where a table names the files, none is left out by its ending."""
    write(tmp_path, "ok/1.png", "dent/deep/2.JPG")
    for name in ("ok/3.webp", "dent/deep/4.webp", "dent/notes.TXT", "ok/.DS_Store", "ok/README"):
        (tmp_path / name).write_bytes(b"x")
    assert other_endings(tmp_path) == {"": 1, ".txt": 1, ".webp": 2}
    assert other_endings(table(tmp_path, "path,label\nok/1.png,ok\n")) == {}


def test_a_link_out_of_the_directory_is_refused(tmp_path: Path) -> None:
    """A symbolic link is followed only inside."""
    write(tmp_path, "outside.png")
    write(tmp_path / "in", "ok/1.png")
    (tmp_path / "in" / "ok" / "2.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(UsageError, match="leads out of"):
        read_directory(tmp_path / "in", "ok")


def test_nothing_to_import_is_an_error(tmp_path: Path) -> None:
    """An empty folder, and one that is not there."""
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UsageError, match=r"director|no pictures"):
            read_directory(folder, "ok")


def counts(store: Store) -> tuple[int, ...]:
    with store.begin(read_only=True) as session:
        return tuple(
            session.scalar(select(func.count()).select_from(t)) or 0 for t in (PictureRow, LabelRow, QuarantineRow)
        )


def test_importing_twice_changes_nothing(store: Store, tmp_path: Path) -> None:
    """Good pictures and labels come in once, a bad picture is counted once and reported each time."""
    write(tmp_path, "ok/1.png", "ok/2.png", "dent/3.png")
    (tmp_path / "dent" / "cut.png").write_bytes(encode(texture(9))[:200])
    seen: list[tuple[int, int]] = []
    items = read_directory(tmp_path, "ok")
    first = import_items(store, "lid", items, **LIMITS, progress=lambda done, total: seen.append((done, total)))
    state = counts(store)
    second = import_items(store, PRODUCT, items, **LIMITS)
    assert (first.new, first.known, first.labels, first.refused_by_code) == (3, 0, 3, {"truncated": 1})
    assert (second.new, second.known, second.labels, second.refused) == (0, 3, 0, first.refused)
    assert (counts(store), state, seen) == ((3, 3, 1), (3, 3, 1), [(4, 4)])


def test_a_picture_that_vanished_or_is_huge_is_refused_and_the_others_come_in(store: Store, tmp_path: Path) -> None:
    """Each is named with its reason."""
    write(tmp_path, "ok/1.png", "ok/2.png", "dent/3.png")
    with (tmp_path / "dent" / "huge.png").open("wb") as out:
        out.truncate(2**40)
    items = read_directory(tmp_path, "ok")
    (tmp_path / "ok" / "2.png").unlink()
    done = import_items(store, "lid", items, **LIMITS)
    assert (done.new, done.refused_by_code) == (2, {"too_large": 1, "unreadable": 1})
    assert counts(store) == (2, 2, 2)


def test_a_label_corrected_in_the_directory_supersedes(store: Store, tmp_path: Path) -> None:
    """Another label for the same file is an answer that changed, not a contradiction."""
    write(tmp_path, "a.png", "b.png")
    for label in ("dent", "scratch"):
        items = read_directory(table(tmp_path, f"path,label\na.png,{label}\nb.png,ok\n"), "ok")
        import_items(store, "lid", items, **LIMITS)
    with store.begin(read_only=True) as session:
        assert sorted(str(label.label) for label in current_labels(session, "lid").values()) == ["ok", "scratch"]


def test_two_files_with_one_content_and_two_labels_contradict(store: Store, tmp_path: Path) -> None:
    """The same bytes under two classes are a contradiction to be seen."""
    data = encode(texture(1))
    for name in ("ok", "dent"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.png").write_bytes(data)
    import_items(store, "lid", read_directory(tmp_path, "ok"), **LIMITS)
    with store.begin(read_only=True) as session:
        (label,) = current_labels(session, "lid").values()
    assert label.contradictory


def test_a_class_the_product_lacks_stops_the_import(store: Store, tmp_path: Path) -> None:
    """Nothing is written; without labels the same pictures may come in."""
    items = read_directory(write(tmp_path, "ok/1.png", "burr/2.png"), "ok")
    with pytest.raises(UsageError, match="no class burr"):
        import_items(store, "lid", items, **LIMITS)
    assert counts(store) == (0, 0, 0)
    assert import_items(store, "lid", items, **LIMITS, labelled=False).new == 2
    assert counts(store) == (2, 0, 0)


def test_groups_whose_rows_name_two_splits_are_reported(store: Store, tmp_path: Path) -> None:
    """The importer says which groups it will not divide."""
    write(tmp_path, "a.png", "b.png", "c.png")
    table(tmp_path, "path,label,split,group\na.png,ok,train,g1\nb.png,ok,test,g1\nc.png,ok,test,g2\n")
    assert import_items(store, "lid", read_directory(tmp_path, "ok"), **LIMITS).mixed_groups == ["g1"]


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "good", "classes", "pictures"),
    [("elpv", "functional", 2, 2624), ("deeppcb_crops", "ok", 7, 10_533), ("deeppcb_boards", "ok", 2, 1264)],
)
def test_real_sets_are_read(real_data: Path, name: str, good: str, classes: int, pictures: int) -> None:
    """The tables of the real sets give every picture."""
    items = read_directory(real_data / name, good)
    assert (len(items), len(classes_of(items, good))) == (pictures, classes)


@pytest.mark.real_data
def test_a_set_without_a_good_class_names_its_classes(real_data: Path) -> None:
    """X-SDD holds seven kinds of defect and nothing good."""
    with pytest.raises(UsageError, match="its classes are finishing_roll_printing"):
        read_directory(real_data / "xsdd", "ok")


@pytest.mark.real_data
def test_a_real_set_comes_in(real_data: Path, store: Store) -> None:
    """Sixty pictures of the board crops, with their splits and scans."""
    items = read_directory(real_data / "deeppcb_crops", "ok")[::180]
    with store.begin() as session:
        save_product(session, PRODUCT.model_copy(update={"classes": classes_of(items, "ok")}))
    report = import_items(store, "lid", items, **LIMITS)
    with store.begin(read_only=True) as session:
        labels = current_labels(session, "lid")
        splits = session.scalars(select(PictureRow.fixed_split)).all()
    wanted: Counter[str] = Counter(item.label for item in items)
    assert report.new == len(items) - report.known
    assert Counter(str(label.label) for label in labels.values()) <= wanted
    assert set(splits) <= {"train", "golden"}
    assert isinstance(items[0], Item)
