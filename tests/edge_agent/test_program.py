"""The program as it is started on a device: real processes, signals, files."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_agent.agent import only_one
from inspection.contracts import Verdict, sha256_hex
from tests.edge_agent.helpers import Authority, air_gap, bundle, enrolled, from_device, picture, png, recipe, write_picture

HEAVY = ("torch", "lightning", "prefect", "mlflow", "sqlalchemy", "fastapi", "rich", "scipy", "onnx", "timm")


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """`edge-agent ...`, with its output caught."""
    command = [sys.executable, "-m", "edge_agent", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def agent(*arguments: str | Path, code: int = 0) -> str:
    """Run to the end, check the exit code, give standard output."""
    process = start(*arguments)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    return out


@pytest.fixture
def device(tmp_path: Path, authority: Authority) -> Path:
    """A folder with an enrolled agent (`state`), its air gap (`gap`) and its camera folder (`pictures`)."""
    air_gap(tmp_path / "gap", authority, assignment=authority.assignment(1, bundle()), data=bundle())
    (tmp_path / "pictures").mkdir()
    enrolled(tmp_path / "state", authority, f"dir:{tmp_path / 'gap'}")
    return tmp_path


def running(device: Path, *more: str) -> tuple[str | Path, ...]:
    return ("run", "--state", device / "state", "--camera", f"folder:{device / 'pictures'}", *more)


def status(device: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(agent("status", "--state", device / "state", "--json"))
    return found


def test_enrol_run_status_and_doctor(tmp_path: Path, authority: Authority) -> None:
    """A device's first day, from the command line."""
    air_gap(tmp_path / "gap", authority, assignment=authority.assignment(1, bundle()), data=bundle())
    (tmp_path / "pictures").mkdir()
    write_picture(tmp_path / "pictures", "a.png", picture(1))
    state = ("--state", tmp_path / "state")
    hub = ("--hub", f"dir:{tmp_path / 'gap'}", "--code", "K7", "--device", "cam1", "--station", "press1")
    camera = ("--camera", f"folder:{tmp_path / 'pictures'}")
    agent("enrol", *hub, *camera, *state, "--page", "127.0.0.1", code=2)
    agent("enrol", *hub, *camera, *state, "--page", "off")
    assert (tmp_path / "state" / "agent.json").stat().st_mode & 0o777 == 0o600
    agent("enrol", *hub, *state, code=2)
    assert "bundle: none is installed" in agent("doctor", *state, code=1)
    agent("run", *state, "--max-triggers", "1")
    well = agent("doctor", *state)
    said, runtimes = well.splitlines()
    assert said == "well: permissions, camera, processor, disk, clock, hub, certificate, ledger, bundle"
    assert runtimes.startswith("runtimes: onnxruntime ")
    found = status(tmp_path)
    assert (found["bundle"], found["ledger"]["ok"], found["ledger_closes"]) == (sha256_hex(bundle()), 1, True)
    agent("settings", "takt_seconds=2", *state)
    agent("enrol", *hub, "--force", *state)
    kept = json.loads(agent("settings", *state))
    assert (kept["takt_seconds"], kept["camera"], kept["wiring"]["page"]) == (2, f"folder:{tmp_path / 'pictures'}", None)
    assert [v["part"] for v in from_device(tmp_path / "gap")] == ["a"]


def test_it_runs_without_any_privilege(device: Path) -> None:
    """As the systemd unit starts it: no capability, none to be had. Other tests run as whoever runs them, often root."""
    write_picture(device / "pictures", "a.png", picture(1))
    drop = ["setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []
    command = [*drop, sys.executable, "-m", "edge_agent", *map(str, running(device))]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_for_rows(device, 1)
        held = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        process.terminate()
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert [line.split()[1] for line in held if line.startswith("CapEff")] == ["0" * 16]
    assert status(device)["ledger"]["ok"] == 1


def test_no_library_keeps_anything_in_the_home_of_the_user(device: Path) -> None:
    """As ONNX Runtime does with what it reports to its maker."""
    home = device / "home"
    home.mkdir()
    write_picture(device / "pictures", "a.png", picture(1))
    command = [sys.executable, "-m", "edge_agent", *map(str, running(device, "--max-triggers", "1"))]
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY" and not k.startswith("XDG_")}
    done = subprocess.run(command, env=environment | {"HOME": str(home)}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert status(device)["ledger"]["ok"] == 1
    assert list(home.rglob("*")) == []


def test_the_peak_of_memory_is_the_process_own() -> None:
    """Whoever starts it may be large."""
    ballast = bytearray(b"x") * 400_000_000
    ask = "from edge_agent.machine import peak_memory_bytes; print(peak_memory_bytes())"
    told = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout
    assert 1_000_000 < int(told) < len(ballast) / 2


def test_kill_9_at_any_moment_loses_nothing_and_doubles_nothing(device: Path) -> None:
    """Killed six times while parts arrive: every part has one verdict here and at the hub, and the ledger closes."""
    total = 0
    for round_number in range(6):
        for index in range(12):
            scratch = 255 if index % 3 == 0 else 0
            write_picture(device / "pictures", f"r{round_number}-{index:02}.png", picture(total, scratch=scratch))
            total += 1
        process = start(*running(device, "--poll", "0.1"))
        wait_for_rows(device, total - 8 + round_number)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    write_picture(device / "pictures", "last.png", picture(total))
    total += 1
    process = start(*running(device, "--poll", "0.1"))
    wait_for_rows(device, total)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    found = status(device)
    assert found["ledger_closes"]
    assert found["bundle"] == sha256_hex(bundle())
    assert found["ledger"]["triggers"] == total
    assert found["ledger"]["pending"] == 0
    sent = from_device(device / "gap")
    assert sorted(v["part"] for v in sent) == sorted(p.stem for p in (device / "pictures").iterdir())
    keys = [(v["boot"], v["sequence"]) for v in sent]
    assert len(set(keys)) == len(keys) == total
    for boot in {boot for boot, _ in keys}:
        sequences = sorted(s for b, s in keys if b == boot)
        assert sequences == list(range(1, len(sequences) + 1))
    pictures = {p.stem for p in (device / "gap" / "from_device" / "pictures").iterdir() if p.suffix == ".png"}
    assert {v["frame_sha256"] for v in sent if v["frame_sha256"]} <= pictures


def wait_for_rows(device: Path, rows: int) -> None:
    """Until the journal holds that many verdicts."""
    path = device / "state" / "journal.db"
    until = time.monotonic() + 90
    while time.monotonic() < until:
        if path.exists() and count_rows(path) >= rows:
            return
        time.sleep(0.005)
    raise AssertionError(f"no {rows} rows after 90 s")


def count_rows(path: Path) -> int:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return int(connection.execute("SELECT COUNT(*) FROM verdicts").fetchone()[0])
    except sqlite3.OperationalError:  # the table is being made
        return 0
    finally:
        connection.close()


def test_two_agents_on_one_state_are_refused(device: Path) -> None:
    """The second says so and leaves with 2."""
    write_picture(device / "pictures", "a.png", picture(1))
    first = start(*running(device))
    wait_for_rows(device, 1)
    agent(*running(device), code=2)
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=30)
    assert first.returncode == 0


def test_what_was_set_aside_is_sent_again_by_hand(device: Path) -> None:
    """Not beside a running agent, whose journal it is; then the next run sends it."""
    state = ("--state", device / "state")
    agent("requeue", *state, code=2)  # nothing was ever judged
    write_picture(device / "pictures", "bad.png", picture(1, scratch=255))
    agent(*running(device, "--max-triggers", "1"))
    with sqlite3.connect(device / "state" / "journal.db") as journal:
        journal.execute("UPDATE verdicts SET state = 'refused'")
        journal.execute("UPDATE pictures SET state = 'refused'")
    journal.close()
    with only_one(device / "state"):  # as an agent holds it
        agent("requeue", *state, code=2)
    assert status(device)["ledger"]["evicted"] == 2
    assert agent("requeue", *state).startswith("2 verdicts and pictures wait again")
    assert json.loads(agent("requeue", *state, "--json")) == {"requeued": 0}
    write_picture(device / "pictures", "good.png", picture(2))
    agent(*running(device, "--max-triggers", "1"))
    assert (status(device)["ledger"]["uploaded"], status(device)["ledger"]["evicted"]) == (3, 0)


def test_looking_at_a_device_that_never_ran_makes_nothing(device: Path) -> None:
    """Said in a sentence; the journal is made by the agent."""
    agent("status", "--state", device / "state", code=2)
    assert "ledger: " in agent("doctor", "--state", device / "state", code=1)
    assert not (device / "state" / "journal.db").exists()


def test_a_camera_that_nobody_looked_at_is_not_called_well(device: Path) -> None:
    """An agent holds it and has no page: said in words and to scripts, and no reason to leave with 1."""
    write_picture(device / "pictures", "a.png", picture(1))
    agent(*running(device, "--max-triggers", "1"))
    agent("settings", f"camera=folder:{device / 'pictures'}", "--state", device / "state")
    with only_one(device / "state"):  # as an agent holds it
        told = agent("doctor", "--state", device / "state")
        found = json.loads(agent("doctor", "--state", device / "state", "--json"))
    assert told.splitlines()[0].startswith("camera: not looked at: an agent runs")
    assert "camera" not in told.splitlines()[1]
    assert list(found["not_looked_at"]) == ["camera"]
    assert "camera" not in found["checked"]
    assert found["problems"] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_root_is_sent_to_the_user_whose_station_it_is(device: Path) -> None:
    """Every command that uses the folder says so in one sentence, and leaves everything as it was."""
    state = ("--state", device / "state")
    os.chown(device / "state", 12345, -1)
    before = (device / "state" / "agent.json").read_bytes()
    for command in (["settings", "takt_seconds=2"], ["doctor"], ["status"], ["requeue"], ["passport", "p"], ["run"]):
        process = start(*command, *state)
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err.count("\n")) == (2, 1)
        assert "sudo -u" in err
    assert [path.name for path in (device / "state").iterdir()] == ["agent.json"]
    assert (device / "state" / "agent.json").read_bytes() == before


def test_log_lines_are_json(device: Path) -> None:
    """Each line on standard error can be read by a program."""
    write_picture(device / "pictures", "a.png", picture(1))
    process = start(*running(device, "--max-triggers", "1"))
    _, err = process.communicate(timeout=30)
    lines = [json.loads(line) for line in err.splitlines()]
    assert {"started", "switched", "output OK"} <= {line["message"] for line in lines}


def replay(*arguments: str | Path, code: int = 0) -> list[Verdict]:
    return [Verdict.parse(line) for line in agent("replay", *arguments, "--json", code=code).splitlines()]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A directory of classes with a corrupt file in it, and a bundle beside it."""
    for name, image in (("good/a.png", picture(1)), ("scratch/b.png", picture(2, scratch=255))):
        (tmp_path / "set" / name).parent.mkdir(parents=True)
        (tmp_path / "set" / name).write_bytes(png(image))
    (tmp_path / "set" / "good" / "torn.png").write_bytes(png(picture(3))[:200])
    (tmp_path / "bundle.tar").write_bytes(bundle())
    return tmp_path / "set"


def test_replay_gives_one_verdict_per_picture(pictures: Path) -> None:
    """Class-per-folder; a torn picture is an ERROR with its reason; timings are there."""
    verdicts = replay(pictures.parent / "bundle.tar", pictures)
    assert [(v.part, v.decision.value) for v in verdicts] == [
        ("good/a.png", "OK"),
        ("good/torn.png", "ERROR"),
        ("scratch/b.png", "NG"),
    ]
    assert "torn" in str(verdicts[1].reason)
    assert {v.device for v in verdicts} == {"replay"}
    assert {"decode", "infer", "judge", "total"} <= set(verdicts[0].timings_ms)
    assert verdicts[0].bundle_digest == sha256_hex(bundle())


def test_replay_follows_labels_csv_and_a_recipe(pictures: Path) -> None:
    """The listed pictures in their order, missing ones as ERROR, judged by the given recipe."""
    (pictures / "labels.csv").write_text("path,label\nscratch/b.png,scratch\nnowhere.png,good\ngood/a.png,good\n")
    strict = pictures.parent / "strict.json"
    strict.write_bytes(recipe(7, inconclusive=0.0, ng=0.0).canonical())
    verdicts = replay(pictures.parent / "bundle.tar", pictures, "--recipe", strict)
    assert [v.decision.value for v in verdicts] == ["NG", "ERROR", "NG"]
    assert verdicts[0].recipe_digest == recipe(7, inconclusive=0.0, ng=0.0).digest


def test_replay_checks_the_signature_when_asked(pictures: Path, authority: Authority) -> None:
    """A good envelope passes; a flipped byte in the bundle is refused with 1; half a question is wrong usage."""
    folder = pictures.parent
    (folder / "root.json").write_bytes(authority.root.canonical())
    (folder / "envelope.json").write_bytes(authority.envelope(bundle()))
    trust: Sequence[str | Path] = ("--trust", folder / "root.json", "--envelope", folder / "envelope.json")
    assert len(replay(folder / "bundle.tar", pictures, *trust)) == 3
    flipped = bytearray(bundle())
    flipped[-1] ^= 1
    (folder / "bundle.tar").write_bytes(flipped)
    assert replay(folder / "bundle.tar", pictures, *trust, code=1) == []
    assert replay(folder / "bundle.tar", pictures, *trust[:2], code=2) == []


def test_a_past_part_is_judged_again_from_its_record(device: Path) -> None:
    """The passport says what it was judged with; the same frame, model and recipe give the same verdict again."""
    write_picture(device / "pictures", "bad.png", picture(1, scratch=255))
    write_picture(device / "pictures", "good.png", picture(2))
    agent(*running(device, "--max-triggers", "2"))
    state = ("--state", device / "state", "--json")
    passport = json.loads(agent("passport", "bad", *state))
    assert passport["verdict"]["decision"] == "NG"
    assert (passport["model"]["digest"], passport["missing"]) == (sha256_hex(bundle()), [])
    assert {"cpu", "int8", "onnxruntime"} <= passport["machine"].keys()
    replayed = json.loads(agent("replay", "--part", "bad", *state))
    assert (replayed["same"], replayed["recomputed"], replayed["machine_changed"]) == (True, "NG", {})
    assert replayed["max_score_difference"] < 1e-6
    assert "not kept" in json.loads(agent("passport", "good", *state))["missing"][0]
    agent("replay", "--part", "good", *state, code=2)
    agent("replay", "--part", "nobody", *state, code=2)
    agent("passport", "nobody", *state, code=2)


def test_a_frame_that_was_changed_on_the_disk_is_not_judged_again(device: Path) -> None:
    """A verdict is compared with the frame it was made on, or not at all; and so is a row."""
    write_picture(device / "pictures", "bad.png", picture(1, scratch=255))
    agent(*running(device, "--max-triggers", "1"))
    state = ("--state", device / "state", "--json")
    (kept,) = (device / "state" / "outbox").glob("*.png")
    kept.write_bytes(png(picture(9)))
    agent("replay", "--part", "bad", *state, code=2)
    with sqlite3.connect(device / "state" / "journal.db") as journal:
        journal.execute("UPDATE verdicts SET decision = 'OK'")
    journal.close()
    assert "journal was changed" in agent("doctor", *state, code=1)


def test_replay_of_nothing_is_wrong_usage(tmp_path: Path) -> None:
    """An empty folder is a mistake, not a perfect score; junk is no bundle."""
    (tmp_path / "bundle.tar").write_bytes(bundle())
    (tmp_path / "set").mkdir()
    assert replay(tmp_path / "bundle.tar", tmp_path / "set", code=2) == []
    write_picture(tmp_path / "set", "a.png", picture(1))
    (tmp_path / "bundle.tar").write_bytes(b"junk")
    assert replay(tmp_path / "bundle.tar", tmp_path / "set", code=1) == []


def test_bench_prints_the_bare_model_and_every_stage(tmp_path: Path) -> None:
    """The bare model beside the whole way, for each size and grid that was asked for; the stages are the whole."""
    (tmp_path / "bundle.tar").write_bytes(bundle())
    asked = ("--size", "64x48", "--size", "128x96", "--tiles", "1x1", "--runs", "5")
    cases = json.loads(agent("bench", tmp_path / "bundle.tar", *asked, "--json"))["cases"]
    assert [(c["size"], c["tiles"]) for c in cases] == [("64x48", "1x1"), ("128x96", "1x1")]
    for case in cases:
        assert case["frame_to_verdict_ms"]["p50"] > case["stages_ms"]["infer"]["p50"] > 0
        assert case["session_run_ms"]["p50"] > 0
    shown = agent("bench", tmp_path / "bundle.tar", "--size", "64x48", "--tiles", "1x1", "--runs", "5")
    assert "journal" in shown
    assert "64x48" in shown


@pytest.mark.parametrize("size", ["64", "64x", "0x48", "64x48x3", "-1x5"])
def test_bench_refuses_a_size_that_is_none(size: str, tmp_path: Path) -> None:
    """Wrong usage, said before anything runs."""
    (tmp_path / "bundle.tar").write_bytes(bundle())
    agent("bench", tmp_path / "bundle.tar", "--size", size, code=2)


@pytest.mark.parametrize(
    "command", ["enrol", "run", "settings", "replay", "passport", "status", "requeue", "doctor", "bench"]
)
def test_help_has_an_example(command: str) -> None:
    """Each command shows how it is called."""
    assert f"edge-agent {command} " in " ".join(agent(command, "--help").split("Example:")[1].split())


@pytest.mark.parametrize("arguments", [("run",), ("status",), ("enrol",), ("replay",), ("nonsense",)])
def test_wrong_usage_is_2(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """Not enrolled, options missing, unknown command."""
    state = ("--state", tmp_path) if arguments[0] in ("run", "status") else ()
    agent(*arguments, *state, code=2)


def test_the_agent_loads_nothing_heavy(device: Path) -> None:
    """A whole run in a fresh process, and the import of the loop, load none of the server's or the trainer's stacks."""
    write_picture(device / "pictures", "a.png", picture(1))
    program = (
        "import sys\n"
        "sys.modules['rich'] = None\n"  # a device has none; where it is, httpx loads it for a command line of its own
        "import edge_agent.loop, edge_agent.transport\n"
        "from edge_agent.__main__ import cli\n"
        "cli(sys.argv[1:], standalone_mode=False)\n"
        f"print([m for m in {HEAVY!r} if sys.modules.get(m)])"
    )
    command = [sys.executable, "-c", program, *map(str, running(device, "--max-triggers", "1"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
    assert status(device)["ledger"]["ok"] == 1
