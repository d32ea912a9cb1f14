"""The unit of work, the schema and the append-only tables, on both databases."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from inspection.errors import AppendOnlyError, EnvironmentTroubleError, ServerError, UsageError
from inspection.store import schema, tables
from inspection.store.engine import database_url
from inspection.store.session import Store, insert_all_new, insert_new
from tests.store.places import Place

ROWS = {
    "failed_retrains": """
        INSERT INTO failed_retrains (product, last_label_id, stage, why, at) VALUES ('p', 1, 's', 'w', '2026-01-01')""",
    "labels": """
        INSERT INTO products (name, body, updated_at) VALUES ('p', '{}', '2026-01-01');
        INSERT INTO pictures
            (sha256, length, media_type, width, height, phash, product, part, group_key, source, received_at)
            VALUES ('a', 1, 'image/png', 1, 1, '0', 'p', '1', '1', 'import', '2026-01-01');
        INSERT INTO labels
            (product, picture, kind, label, boxes, origin, origin_id, annotator, made_at, recorded_at, body)
            VALUES ('p', 'a', 'answer', 'ok', '[]', 'import', '1', 'me', '2026-01-01', '2026-01-01', '{}')""",
    "promotions": """
        INSERT INTO promotions
            (product, serial, role, model_version, run_id, snapshot, bundle, recipe, fencing_token, who, why, at)
            VALUES ('p', 1, 'champion', '1', 'r', 's', 'b', 'c', 1, 'me', 'w', '2026-01-01')""",
    "gate_decisions": """
        INSERT INTO gate_decisions (product, gate, subject, snapshot, answer, why, body, at)
            VALUES ('p', 1, 's', 'n', 'PASS', 'w', '{}', '2026-01-01')""",
    "golden_looks": "INSERT INTO golden_looks (snapshot, who, why, at) VALUES ('s', 'me', 'w', '2026-01-01')",
}
COLUMN = {
    "labels": "label",
    "promotions": "why",
    "gate_decisions": "answer",
    "golden_looks": "who",
    "failed_retrains": "why",
}

AN_OLD_VERDICT = """
    INSERT INTO verdicts
        (id, device, boot, sequence, station, product, part, captured_at, received_at, mode, decision, sha256, body)
        VALUES (:id, 'd', 'b', :sequence, 's', 'p', '1', '2026-01-01', '2026-01-01', 'judge', 'NG', '0', :body)"""


def looks(store: Store) -> int:
    with store.begin(read_only=True) as session:
        return len(session.query(tables.GoldenLookRow).all())


def a_look(who: str = "me") -> tables.GoldenLookRow:
    return tables.GoldenLookRow(snapshot="s", who=who, why="w")


def test_a_unit_of_work_commits_all_or_nothing(store: Store) -> None:
    """What was added is kept on success, and nothing of it after an error."""
    with store.begin() as session:
        session.add(a_look())

    def fail(session: Session) -> None:
        session.add(a_look())
        session.flush()
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"), store.begin() as session:
        fail(session)
    assert looks(store) == 1


def test_rows_stay_readable_after_the_unit_of_work(store: Store) -> None:
    """A row's values can be used when its transaction is over."""
    with store.begin() as session:
        row = a_look("somebody")
        session.add(row)
    assert (row.who, row.id) == ("somebody", 1)


def test_a_read_only_unit_refuses_to_write(store: Store) -> None:
    """`read_only` is a promise that the database enforces."""
    with pytest.raises(Exception, match=r"readonly|read-only"), store.begin(read_only=True) as session:
        session.add(a_look())
    assert looks(store) == 0


def test_many_writers_queue(store: Store) -> None:
    """Eight threads that read, then write, all get through: none meets "database is locked"."""
    store_errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(5):
                with store.begin() as session:
                    session.query(tables.GoldenLookRow).count()
                    session.add(a_look())
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            store_errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (store_errors, looks(store)) == ([], 40)


def test_insert_new_says_whether_the_row_is_new(store: Store) -> None:
    """The second insert under one key changes nothing and says so."""
    with store.begin() as session:
        first = insert_new(session, tables.SplitRow, product="p", group="g", split="train")
        second = insert_new(session, tables.SplitRow, product="p", group="g", split="golden")
        kept = session.get(tables.SplitRow, ("p", "g"))
        assert (first, second, kept and kept.split) == (True, False, "train")


def test_crossed_batches_do_not_block_each_other(store: Store) -> None:
    """Two writers bring the same rows in opposite orders: both get through, and each row is new to one of them."""
    batches = [[(f"p{batch}", f"g{number}") for number in range(400)] for batch in range(5)]
    start = threading.Barrier(2)
    new: list[tuple[str, str]] = []
    store_errors: list[BaseException] = []

    def work(direction: int) -> None:
        try:
            for batch in batches:
                start.wait(60)
                rows = [{"product": product, "group": group, "split": "train"} for product, group in batch[::direction]]
                with store.begin() as session:
                    new.extend(insert_all_new(session, tables.SplitRow, rows))
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            store_errors.append(error)
            start.abort()

    threads = [threading.Thread(target=work, args=(direction,)) for direction in (1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (store_errors, sorted(new)) == ([], sorted(key for batch in batches for key in batch))


def test_times_come_back_in_utc(store: Store) -> None:
    """A time of another zone is the same moment afterwards, in UTC; a naive one is refused."""
    moment = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    with store.begin() as session:
        session.add(tables.WatermarkRow(name="w", value="1", updated_at=moment))
    with store.begin() as session:
        kept = session.get(tables.WatermarkRow, "w")
        assert kept is not None
        assert (kept.updated_at, kept.updated_at.tzinfo) == (moment, UTC)
        kept.updated_at = datetime(2026, 1, 1)  # noqa: DTZ001 - what is refused
        with pytest.raises(Exception, match="naive time"):
            session.flush()
        session.rollback()


def test_models_and_migrations_agree(empty_place: Place) -> None:
    """Alembic finds no difference between the migrated database and the tables in code."""
    with empty_place.open() as store, store.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.Base.metadata) == []


def test_the_schema_can_go_back_and_forth(empty_place: Place) -> None:
    """A downgrade to nothing leaves no table of ours, and an upgrade makes them all again."""
    with empty_place.open() as store:
        with store.engine.begin() as connection:
            command.downgrade(schema.alembic_config(connection), "base")
        assert not schema.check(store.engine)
        schema.upgrade(store.engine)
        assert schema.check(store.engine)


def test_verdicts_from_before_there_was_a_purpose_get_the_one_in_their_body(empty_place: Place) -> None:
    """A challenge that is stored already is no part of the line from now on; who said nothing made one."""
    bodies = {"known": '{"purpose": "challenge"}', "made": '{"purpose": "production"}', "old": "{}"}
    with empty_place.open() as store:
        with store.engine.begin() as connection:
            command.downgrade(schema.alembic_config(connection), "0004")
            for number, (name, body) in enumerate(bodies.items()):
                connection.execute(text(AN_OLD_VERDICT), {"id": name, "sequence": number, "body": body})
        schema.upgrade(store.engine)
        with store.begin(read_only=True) as session:
            kept = dict(session.execute(text("SELECT id, purpose FROM verdicts")).tuples().all())
    assert kept == {"known": "challenge", "made": "production", "old": "production"}


def test_several_processes_open_a_new_store_together(empty_place: Place) -> None:
    """Four programs that start at once on an empty place all get the same, complete schema."""
    program = "import sys; from inspection.store.session import Store; Store.open(*sys.argv[1:]).close()"
    command_line = [sys.executable, "-c", program, empty_place.database_url, empty_place.blob_url]
    running = [subprocess.Popen(command_line, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0] * 4, said
    with empty_place.open(migrate=False) as store:
        assert schema.check(store.engine)


def test_an_old_schema_is_refused_without_migrate(empty_place: Place) -> None:
    """Opening an empty database without leave to migrate says what to do."""
    with pytest.raises(EnvironmentTroubleError, match="migrate=True"):
        empty_place.open(migrate=False)


def test_a_newer_schema_is_refused(place: Place) -> None:
    """A database that a later version made is not touched."""
    with place.open() as store, store.begin() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(EnvironmentTroubleError, match="update this program"):
        place.open()


@pytest.fixture(params=tables.APPEND_ONLY)
def filled(request: pytest.FixtureRequest, store: Store) -> Iterator[str]:
    with store.begin() as session:
        for statement in ROWS[request.param].split(";"):
            session.execute(text(statement))
    yield request.param
    with store.begin() as session:
        assert session.execute(text(f"SELECT count(*) FROM {request.param}")).scalar() == 1


@pytest.mark.parametrize("verb", ["UPDATE {table} SET {column} = 'x'", "DELETE FROM {table}"])
def test_history_is_not_changed_even_by_raw_sql(store: Store, filled: str, verb: str) -> None:
    """UPDATE and DELETE on an append-only table fail in the database itself."""
    with pytest.raises(AppendOnlyError, match="append-only"), store.begin() as session:
        session.execute(text(verb.format(table=filled, column=COLUMN[filled])))


def test_history_is_not_replaced_or_truncated(store: Store, filled: str) -> None:
    """Neither TRUNCATE nor a replacing insert gets around the triggers, also on a connection that is not ours."""
    engine = create_engine(store.engine.url)
    statement = f"TRUNCATE {filled}"
    if engine.dialect.name == "sqlite":
        statement = f"INSERT OR REPLACE INTO {filled} SELECT * FROM {filled}"
    with pytest.raises(Exception, match="append-only"), engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_every_append_only_table_has_a_test() -> None:
    """The rows above cover all tables that are said to be append-only."""
    assert set(ROWS) == set(tables.APPEND_ONLY)


def test_one_device_boot_and_sequence_name_one_verdict(store: Store) -> None:
    """The database itself refuses a second verdict under the same key."""
    common = {"device": "d", "boot": "b", "sequence": 1, "station": "s", "product": "p", "part": "1", "mode": "judge"}
    common |= {"decision": "OK", "sha256": "0", "body": {}, "captured_at": tables.utc_now()}
    with pytest.raises(IntegrityError), store.begin() as session:
        session.add_all([tables.VerdictRow(id="1", **common), tables.VerdictRow(id="2", **common)])


def test_postgresql_urls_mean_psycopg_three() -> None:
    """The short form of a PostgreSQL URL selects the driver we ship."""
    assert database_url("postgresql://u@h/n").drivername == "postgresql+psycopg"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://u:secret@h/n", "nonsense"])
def test_other_databases_are_refused_without_showing_the_password(url: str) -> None:
    """A URL we cannot use is refused in words, its password hidden."""
    with pytest.raises(UsageError) as caught:
        database_url(url)
    assert "secret" not in str(caught.value)


def test_a_silent_server_is_a_server_error(tmp_path: Path) -> None:
    """A PostgreSQL that is not there is reported with its address."""
    with pytest.raises(ServerError, match=r"127\.0\.0\.1:1"):
        Store.open("postgresql://tests@127.0.0.1:1/none", f"file://{tmp_path}")


@pytest.mark.service
def test_two_that_wait_for_each_other_are_told_so(postgres_url: str, tmp_path: Path) -> None:
    """What a server that is there has refused is not reported as a server that is away."""
    said: list[str] = []
    both_hold = threading.Barrier(2)
    with Store.open(postgres_url, f"file://{tmp_path}") as store:

        def cross(first: int, second: int) -> None:
            try:
                with store.begin() as session:
                    session.execute(text(f"SELECT pg_advisory_xact_lock({first})"))
                    both_hold.wait(60)
                    session.execute(text(f"SELECT pg_advisory_xact_lock({second})"))
            except ServerError as error:
                said.append(str(error))

        threads = [threading.Thread(target=cross, args=order) for order in ((1, 2), (2, 1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(said) == 1
    assert "gave up: deadlock detected" in said[0]


def test_sqlite_is_durable_and_concurrent(tmp_path: Path) -> None:
    """WAL, full synchronisation and foreign keys are on."""
    with Store.open(f"sqlite:///{tmp_path / 's.db'}", f"file://{tmp_path}") as store, store.begin() as session:
        said = [
            session.execute(text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert said == ["wal", 2, 1]
