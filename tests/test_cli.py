"""The two command lines, as a newcomer and as a script meet them."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import cv2
import httpx
import numpy as np
import pytest
from click.testing import CliRunner, Result

from edge_agent.__main__ import cli as edge_agent
from inspection.cli import main as inspection
from inspection.contracts import Limits, sha256_hex
from inspection.data.intake import accept_picture
from inspection.data.labels import IMPORT, LABEL_STUDIO, Answer, record_answers
from inspection.data.pictures import encode_png
from inspection.data.product import Product
from inspection.data.products import add_station, save_product
from inspection.data.snapshot_record import Example, Snapshot, Split
from inspection.errors import UsageError
from inspection.labelling.interface import labelling_config
from inspection.labelling.project import ensure_project
from inspection.settings import Settings, load_settings
from inspection.stages import ask, deploy
from inspection.stages.candidate import Candidate, folder_of
from inspection.store.session import Store
from inspection.store.tables import DeviceRow, utc_now
from inspection.up.machine import free_ports
from tests.data.conftest import texture
from tests.labelling.fake import FakeStudio

ROOT = Path(__file__).parents[1]
LID = Product(name="lid", good_class="ok", classes=["ok", "dent"], limits=Limits(escape_rate=0.01, overkill_rate=0.05))


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A state folder with one product, which commands find without being told."""
    monkeypatch.setenv("ESCAPEMENT_STATE", str(tmp_path / "state"))
    made = load_settings(tmp_path / "state", {})
    with opened(made) as store, store.begin() as session:
        save_product(session, LID)
    return made


def opened(settings: Settings) -> Store:
    return Store.open(settings.database_url, settings.blob_url)


def invoke(*words: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(inspection, list(words), input=stdin)


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    """Every command that is not a group, with its path."""
    found = []
    for name, command in group.commands.items():
        here = (*path, name)
        found += commands(command, here) if isinstance(command, click.Group) else [(here, command)]
    return found


PROGRAMS = [(program, path) for program in (inspection, edge_agent) for path, _ in commands(program)]


@pytest.mark.parametrize(("program", "path"), PROGRAMS, ids=[" ".join(path) for _, path in PROGRAMS])
def test_every_command_shows_an_example(program: click.Group, path: tuple[str, ...]) -> None:
    """Help that does not show how is no help."""
    told = CliRunner().invoke(program, [*path, "--help"])
    assert told.exit_code == 0
    assert "Example:" in told.output


STABLE = [
    "up", "demo", "hub", "import-images", "train", "build-bundle", "gate", "sign", "rollout start", "rollout pause",
    "rollout resume", "rollout abort", "rollout status", "passport", "doctor", "pull-labels", "labels show",
    "labels retract", "product set", "product show", "product list", "product stations", "product add-station",
    "product enrolment-code", "product retire-device", "product set-challenger", "backbones", "preview-augmentation",
    "compare-backbones", "rebuild",
]  # fmt: skip


@pytest.mark.parametrize("path", STABLE)
def test_commands_that_scripts_lean_on_are_there(path: str) -> None:
    """The command line is stable."""
    assert tuple(path.split()) in [known for known, _ in commands(inspection)]


@pytest.mark.parametrize("path", ["enrol", "run", "replay", "status", "doctor", "bench"])
def test_commands_of_the_agent_are_there(path: str) -> None:
    """The command line is stable."""
    assert (path,) in [known for known, _ in commands(edge_agent)]


@pytest.mark.parametrize(
    "arguments",
    [
        ["passport", "nobody"],
        ["build-bundle", "nobody"],
        ["rebuild", "nobody"],
        ["gate", "nobody"],
        ["rollout", "pause", "--product", "nobody"],
        ["train", "--good", "x"],
        ["train", "--images", "tests"],
        ["compare-backbones", "--images", "tests"],
        ["train", "--snapshot", "nobody"],
        ["product", "stations", "--product", "nobody"],
        ["labels", "show", "9c41", "--product", "nobody"],
        ["labels", "retract", "9c41", "--product", "nobody", "--why", "x"],
        ["demo", "--good", "ok"],
        ["demo", "--tiles", "2x2"],
        ["train", "--snapshot", "nobody", "--tiles", "2x2"],
        ["backbones", "--family", "nobody"],
        ["preview-augmentation", "--product", "nobody"],
        ["preview-augmentation", "--images", "tests"],
    ],
)
def test_wrong_usage_is_told_in_a_sentence_and_by_exit_code_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No traceback for something a person can put right."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("ESCAPEMENT_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))
    done = invoke(*arguments)
    assert done.exit_code == 2, done.output
    assert "error: " in done.stderr
    assert isinstance(done.exception, SystemExit)


def test_a_process_ends_with_that_sentence_and_exit_code(tmp_path: Path) -> None:
    """As a script meets it."""
    done = subprocess.run(
        [sys.executable, "-m", "inspection.cli", "product", "show", "nobody"],
        env={"PATH": "/usr/bin:/bin", "ESCAPEMENT_STATE": str(tmp_path / "state"), "HOME": str(tmp_path)},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr


WITHOUT = """
import sys
from importlib.abc import MetaPathFinder

class Without(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

missing = sys.argv[1]
sys.meta_path.insert(0, Without())
from inspection.cli import main
main(sys.argv[2:])
"""


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["up"], "psutil"),
        (["up"], "rich"),
        (["doctor"], "psutil"),
        (["demo"], "rich"),
        (["product", "list"], "sqlalchemy"),
        (["train", "--product", "lid"], "torch"),
        (["hub"], "uvicorn"),
    ],
)
def test_the_base_install_says_what_it_lacks(words: list[str], missing: str, tmp_path: Path) -> None:
    """A device's install has the command, and no server side: no traceback, and the way to install it."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, missing, *words],
        env={"PATH": "/usr/bin:/bin", "ESCAPEMENT_STATE": str(tmp_path / "state"), "HOME": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert f"{missing} is not installed here" in done.stderr
    assert "make install" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_module_of_ours_that_is_missing_is_a_fault_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never told as something to install."""
    monkeypatch.setitem(sys.modules, "inspection.stages.fleet", None)
    assert isinstance(invoke("product", "list").exception, ModuleNotFoundError)


def define(**changes: Any) -> Result:
    """`product set` of the product with these top-level changes."""
    return invoke("product", "set", "-", stdin=json.dumps(LID.model_dump(mode="json") | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schedule": {"retrain": "every day"}}, "schedule.retrain 'every day' has 2 fields instead of five"),
        ({"shedule": {}}, "no field shedule (did you mean schedule?)"),
        ({"train": {"epoch": 3}}, "no field train.epoch (did you mean epochs"),
        ({"train": {"augment": {"flip_vertcal": False}}}, "train.augment.flip_vertcal (did you mean flip_vertical"),
        ({"student": {"backbone": "resnet81"}}, "no backbone is called 'resnet81': did you mean resnet"),
    ],
)
def test_a_definition_with_a_slip_is_refused(settings: Settings, changes: dict[str, Any], said: str) -> None:
    """With the place and the nearest right word; what was kept before stays."""
    told = define(limits={"escape_rate": 0.5, "overkill_rate": 0.5}, **changes)
    assert (told.exit_code, "Traceback" in told.stderr) == (2, False)
    assert said in told.stderr
    assert json.loads(invoke("product", "show", "lid").stdout)["limits"]["escape_rate"] == 0.01


def test_what_a_definition_names_and_is_not_there_is_told(settings: Settings, tmp_path: Path) -> None:
    """Stations come after their product and weights may lie elsewhere: a warning, and it is kept."""
    with opened(settings) as store, store.begin() as session:
        add_station(session, "S1", "lid")
    weights = tmp_path / "there.pth"
    weights.touch()
    told = define(
        rollout={"first_group": ["S1", "S9"]},
        train={"pretrained": str(tmp_path / "gone.pth")},
        student={"pretrained": "weights/w.pth"},
    )
    assert told.exit_code == 0
    assert "rollout.first_group names S9" in told.stderr
    assert "names S1" not in told.stderr
    assert f"train.pretrained: there is no file {tmp_path / 'gone.pth'}" in told.stderr
    assert "student.pretrained 'weights/w.pth' is no whole path" in told.stderr
    assert define(rollout={"first_group": ["S1"]}, train={"pretrained": str(weights)}).stderr == ""


def test_fields_of_a_newer_program_survive_show_and_set(settings: Settings) -> None:
    """What is kept already is no slip."""
    with opened(settings) as store, store.begin() as session:
        save_product(session, LID.model_copy(update={"made_up_later": 1}))
    shown = invoke("product", "show", "lid").stdout
    assert invoke("product", "set", "-", stdin=shown).exit_code == 0
    assert json.loads(invoke("product", "show", "lid").stdout)["made_up_later"] == 1


def test_adding_a_station_again_changes_only_what_is_said(settings: Settings) -> None:
    """It is how people get the enrolment command once more; a judging line must not stop judging by it."""
    add = ("product", "add-station", "S1", "--product", "lid")
    assert "in mode collect, with audit share 0.02" in invoke(*add).stdout
    assert "in mode judge, with audit share 0.5" in invoke(*add, "--mode", "judge", "--audit-share", "0.5").stdout
    assert "in mode judge, with audit share 0.5" in invoke(*add).stdout
    assert invoke(*add, "--audit-share", "2").exit_code == 2


def test_the_enrolment_code_is_printed_for_a_script(settings: Settings) -> None:
    """Alone on standard output; a folder without stations is the wrong one, and its code would fit no hub."""
    refused = invoke("product", "enrolment-code")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "it has no station" in refused.stderr
    invoke("product", "add-station", "S1", "--product", "lid")
    told = invoke("product", "enrolment-code")
    assert told.stdout == settings.secrets.enrolment_code.get_secret_value() + "\n"


def test_products_and_stations_are_listed(settings: Settings) -> None:
    """For people and for scripts, with the devices that `retire-device` takes."""
    assert "no station yet" in invoke("product", "stations").stdout
    with opened(settings) as store, store.begin() as session:
        save_product(session, LID.model_copy(update={"name": "box"}))
        add_station(session, "S1", "lid", mode="judge")
        add_station(session, "S2", "box")
        session.flush()
        session.add(DeviceRow(name="cam-1", station="S1", token_sha256="0" * 64))
    assert [line.split(":")[0] for line in invoke("product", "list").stdout.splitlines()] == ["box", "lid"]
    (lid,) = json.loads(invoke("product", "stations", "--product", "lid", "--json").stdout)
    assert (lid["name"], lid["mode"], lid["devices"]) == ("S1", "judge", ["cam-1"])
    assert "S1: product lid, mode judge, audit share 0.02, devices: cam-1" in invoke("product", "stations").stdout
    assert [one["stations"] for one in json.loads(invoke("product", "list", "--json").stdout)] == [["S2"], ["S1"]]


def test_answers_are_shown_and_retracted(settings: Settings) -> None:
    """With a reason; what Label Studio still holds is named, because its next pull would bring it back."""
    picture = keep_picture(settings)
    shown = json.loads(invoke("labels", "show", picture[:9], "--product", "lid", "--json").stdout)
    assert [(one["origin"], one["origin_id"], one["label"]) for one in shown] == [
        (IMPORT, "i1", "ok"),
        (LABEL_STUDIO, "x/12/1", "dent"),
    ]
    retract = ("labels", "retract", picture[:9], "--product", "lid", "--why", "lost")
    assert invoke(*retract[:-2]).exit_code == 2
    one = invoke(*retract, "--answer", "i1")
    assert "retracted: ok by import" in one.stdout
    assert "Label Studio" not in one.stdout
    rest = invoke(*retract)
    assert "delete the annotation of task 12 too" in rest.stdout
    assert "no answer about it stands" in invoke("labels", "show", picture, "--product", "lid").stdout
    assert invoke(*retract).exit_code == 2


def keep_picture(settings: Settings) -> str:
    """A picture with an imported answer and one from Label Studio."""
    with opened(settings) as store:
        sha256 = accept_picture(
            store,
            encode_png(texture(1)),
            product="lid",
            part="1",
            group="1",
            station=None,
            source="import",
            max_bytes=1_000_000,
            max_pixels=1_000_000,
        ).sha256
        said = [(IMPORT, "i1", "ok", {}), (LABEL_STUDIO, "x/12/1", "dent", {"task": 12})]
        with store.begin() as session:
            record_answers(
                session,
                [
                    Answer("lid", sha256, origin, origin_id, label, "import", utc_now(), body=body)
                    for origin, origin_id, label, body in said
                ],
            )
    return sha256


def test_an_interface_changed_by_hand_is_restored_when_asked(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal names the option, and the option does it."""
    studio = FakeStudio()
    monkeypatch.setattr(ask, "connect", lambda url, token: studio)
    project, config = ensure_project(studio, LID), labelling_config(LID)
    studio.change_project(project, label_config=config.replace('<Label value="dent"', '<Label value="bump"'))
    refused = invoke("pull-labels", "--product", "lid")
    assert refused.exit_code == 1
    assert "`inspection pull-labels --product lid --restore-interface`" in refused.stderr
    assert invoke("pull-labels", "--product", "lid", "--restore-interface").exit_code == 0
    assert studio.project(project).config == config


def test_training_on_a_snapshot_needs_no_product_named(settings: Settings) -> None:
    """The snapshot says whose it is; another product beside it is refused."""
    from inspection.stages.try_out import material_of

    example = Example(picture=sha256_hex(b"x"), label="ok", part="1", group="1", split=Split.TRAIN)
    snapshot = Snapshot(product="lid", good_class="ok", classes=["ok", "dent"], examples=[example])
    with opened(settings) as store:
        store.blobs.put_at(f"snapshots/{snapshot.digest}.json", snapshot.canonical())
        assert material_of(store, {"snapshot": snapshot.digest, "epochs": 3}).product.name == "lid"
        with store.begin() as session:
            save_product(session, LID.model_copy(update={"name": "box"}))
        with pytest.raises(UsageError, match="is one of product 'lid', not of 'box'"):
            material_of(store, {"snapshot": snapshot.digest, "product_name": "box"})


def test_the_hub_serves_where_it_is_told_and_stops_clean(settings: Settings) -> None:
    """A port that is taken can be changed as the refusal says, and a stop is no failure."""
    (port,) = free_ports("127.0.0.1", 1)
    command = [sys.executable, "-m", "inspection.cli", "hub", "--state", str(settings.state), "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as running:
        try:
            deadline = time.monotonic() + 120
            while not answers(port):
                assert running.poll() is None, running.stderr.read() if running.stderr else ""
                assert time.monotonic() < deadline, "the hub did not answer"
                time.sleep(0.1)
            running.send_signal(signal.SIGTERM)
            assert running.wait(30) == 0
        finally:
            running.kill()


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_an_import_tells_what_it_did_not_look_at(settings: Settings, tmp_path: Path) -> None:
    """By ending, so that a folder of another format is not taken for an empty one."""
    for place in ("ok/1.png", "dent/2.png", "dent/3.webp", "dent/4.webp"):
        file = tmp_path / "photos" / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_png(texture(len(place) + int(file.stem))))
    told = invoke("import-images", str(tmp_path / "photos"), "--product", "lid", "--good", "ok")
    assert "lid: 2 new pictures" in told.stdout
    assert "2 files with other endings were not looked at: .webp 2" in told.stdout


def test_starting_a_rollout_says_what_moves_it_on(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `inspection up` nothing looks at it: the flow is named, and the command that runs it by hand."""
    Candidate(
        folder=folder_of(settings, "r1"),
        product="lid",
        snapshot="0" * 64,
        run_id="r1",
        started_at=utc_now(),
        bundle="9c41" + "0" * 60,
    ).save()
    monkeypatch.setattr(deploy, "start", lambda *_, **__: 7)
    told = invoke("rollout", "start", "9c41", "--group", "S1", "--group", "S2")
    assert told.exit_code == 0
    assert "rollout 7 is running" in told.stdout
    assert "the flow `watch` runs" in told.stdout
    assert f"PREFECT_API_URL={settings.prefect_url}/api prefect deployment run roll-out/lid" in told.stdout
    started = json.loads(invoke("rollout", "start", "9c41", "--group", "S1", "--json").stdout)
    shown = json.loads(invoke("rollout", "status", "--product", "lid", "--json").stdout)
    assert started == {"rollout": 7, **shown}


def test_backbones_are_shown_for_people_and_for_scripts() -> None:
    """All families or one, in lines a terminal does not break; a slip in its name is answered with the nearest."""
    shown = invoke("backbones").stdout
    assert "mobilenetv4_conv_small" in shown
    assert max(map(len, shown.splitlines())) <= 120
    (first, *_) = json.loads(invoke("backbones", "--family", "efficientnet_lite", "--json").stdout)
    assert (first["name"], first["family"], first["default"]) == ("efficientnet_lite0", "EfficientNet-Lite", True)
    assert (first["licence"], first["int8"], first["resolution"]) == ("apache-2.0", "fit", 224)
    assert "did you mean ResNet" in invoke("backbones", "--family", "resnte").stderr


def test_a_folder_of_pictures_shows_what_augmentation_makes_of_it(tmp_path: Path) -> None:
    """Two pictures of each class, in one file; a name that is no picture's is told."""
    for label in ("ok", "bent"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(3):
            image = np.random.default_rng([number, len(label)]).integers(0, 256, (48, 64, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / "photos" / label / f"{number}.png"), image)
    out = tmp_path / "sheet.png"
    asked = ["preview-augmentation", "--images", str(tmp_path / "photos"), "--good", "ok", "--out"]
    told = invoke(*asked, str(out))
    assert told.exit_code == 0, told.stderr
    assert "shows 4 pictures" in told.stdout
    assert cv2.imread(str(out)).shape[0] > 400
    assert "end it in .png" in invoke(*asked, str(tmp_path / "sheet.txt")).stderr
    (tmp_path / "photos" / "bent" / "0.png").write_bytes(b"\x89PNG and no more")
    spoilt = invoke(*asked, str(out))
    assert (spoilt.exit_code, "shows 4 pictures" in spoilt.stdout) == (0, True)  # the next one of its class is shown
    (tmp_path / "photos" / "bent").rename(tmp_path / "elsewhere")
    assert "shows 2 pictures" in invoke(*asked, str(out)).stdout  # good ones alone, as on the first day
    for path in (tmp_path / "photos" / "ok").iterdir():
        path.write_bytes(b"nothing")
    assert "can be decoded" in invoke(*asked, str(out)).stderr
    trained = invoke("train", "--images", str(tmp_path / "elsewhere"), "--good", "ok")
    assert trained.exit_code == 2


def test_a_cold_start_that_cannot_be_is_wrong_usage(settings: Settings) -> None:
    """Weights that have learnt nothing, nothing on the lines that could be allowed to judge, and no such product."""
    untaught = Product.model_validate(
        LID.model_dump(exclude_unset=True) | {"train": {"pretrained": "none"}, "student": {"pretrained": "none"}}
    )
    with opened(settings) as store, store.begin() as session:
        save_product(session, untaught)
    told = invoke("cold-start", "--product", "lid")
    assert (told.exit_code, "needs weights that have learnt from other pictures" in told.output) == (2, True)
    told = invoke("cold-start", "--product", "lid", "--may-judge", "we look at every part", "--who", "ann")
    assert (told.exit_code, "no cold start of 'lid' is on the lines" in told.output) == (2, True)
    assert invoke("cold-start", "--product", "lit").exit_code == 2
