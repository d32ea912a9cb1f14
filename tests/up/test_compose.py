"""What the embedded set is made of."""

import json
from pathlib import Path

import pytest

from inspection.errors import EnvironmentTroubleError, UsageError
from inspection.settings import Settings, load_settings
from inspection.up.compose import choose_ports, compose, find_label_studio, temporary_settings
from inspection.up.machine import FIRST_PORT, LAST_PORT, Problem
from inspection.up.service import Service


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An entry point's environment in which Label Studio is found, and which would change programs if it leaked."""
    program = tmp_path / "label-studio"
    program.touch()
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "ESCAPEMENT_LABEL_STUDIO": str(program),
        "PREFECT_API_URL": "https://elsewhere.example/api",
        "MLFLOW_TRACKING_URI": "https://elsewhere.example",
        "HOST": "elsewhere.example",
        "AWS_PROFILE": "plant",
    }


@pytest.fixture
def services(settings: Settings, environment: dict[str, str]) -> dict[str, Service]:
    """The whole set by name."""
    return {service.name: service for service in compose(settings, environment=environment)}


def test_the_set_is_five_programs_and_the_flows_lean_on_hub_and_prefect(services: dict[str, Service]) -> None:
    """Four start at once."""
    assert list(services) == ["hub", "label-studio", "mlflow", "prefect", "flows"]
    assert [s.name for s in services.values() if s.depends_on] == ["flows"]
    assert set(services["flows"].depends_on) == {"hub", "prefect"}


def test_no_secret_is_on_a_command_line_or_in_a_record_printed(services: dict[str, Service], settings: Settings) -> None:
    """``ps`` and a printed record show none of them."""
    hidden = [value.get_secret_value() for _, value in settings.secrets]
    for service in services.values():
        shown = " ".join(service.command) + repr(service)
        assert not [secret for secret in hidden if secret in shown]


def test_variables_of_the_surrounding_shell_do_not_reach_programs_they_would_change(
    services: dict[str, Service], settings: Settings
) -> None:
    """Label Studio, MLflow and Prefect get a minimal environment; our own keep what storage and devices need."""
    for service in services.values():
        assert "elsewhere" not in " ".join(v for k, v in service.env.items() if k != "HOST")
    assert "HOST" not in services["label-studio"].env
    assert "AWS_PROFILE" not in services["mlflow"].env
    assert services["flows"].env["AWS_PROFILE"] == "plant"
    assert services["flows"].env["PREFECT_API_URL"] == f"{settings.prefect_url}/api"
    assert services["flows"].env["ESCAPEMENT_STATE"] == str(settings.state)


def test_our_own_programs_see_the_settings_of_the_entry_point(
    environment: dict[str, str], tmp_path: Path, settings: Settings
) -> None:
    """Whatever was given on the command line arrives, through the variables that settings are read from."""
    changed = settings.model_copy(update={"agent_poll_seconds": 0.5, "database_url": "sqlite:////elsewhere/x.db"})
    (hub,) = [s for s in compose(changed, environment=environment) if s.name == "hub"]
    assert load_settings(settings.state, hub.env) == changed


def test_programs_can_be_left_out_by_name_only(settings: Settings, environment: dict[str, str]) -> None:
    """An unknown name is a mistake to be told."""
    assert "mlflow" not in {s.name for s in compose(settings, environment=environment, without={"mlflow"})}
    with pytest.raises(UsageError, match="no program is called mlfow; there are hub, label-studio"):
        compose(settings, environment=environment, without={"mlfow"})


def test_a_missing_label_studio_comes_with_the_way_to_install_it(
    settings: Settings, environment: dict[str, str], tmp_path: Path
) -> None:
    """Named but not there."""
    environment["ESCAPEMENT_LABEL_STUDIO"] = str(tmp_path / "nowhere")
    problem = find_label_studio(environment)
    assert isinstance(problem, Problem)
    assert "make label-studio" in problem.next_step
    with pytest.raises(EnvironmentTroubleError, match="make label-studio"):
        compose(settings, environment=environment)


def test_chosen_ports_are_different_saved_and_away_from_outgoing_connections(settings: Settings) -> None:
    """Other programs find the same addresses in the state folder."""
    chosen = choose_ports(settings)
    assert load_settings(settings.state, {}) == chosen
    saved = json.loads((settings.state / "settings.json").read_text())
    ports = {int(saved[url].rpartition(":")[2]) for url in saved if url.endswith("_url") and "127.0.0.1" in saved[url]}
    assert len(ports) == 4
    assert all(FIRST_PORT <= port < LAST_PORT for port in ports)


def test_saved_settings_follow_a_folder_that_is_moved_and_are_private(settings: Settings, tmp_path: Path) -> None:
    """A restored backup must not write into the place it was taken from; a database URL may hold a password."""
    chosen = choose_ports(settings)
    assert (settings.state / "settings.json").stat().st_mode & 0o077 == 0
    moved = load_settings(settings.state.rename(tmp_path / "moved"), {})
    assert moved.hub_url == chosen.hub_url
    assert str(tmp_path / "moved") in moved.database_url


def test_only_hub_and_label_studio_leave_loopback(settings: Settings) -> None:
    """MLflow and Prefect have no log-in."""
    chosen = choose_ports(settings, free=False, host="192.0.2.7")
    assert (chosen.hub_url, chosen.label_studio_url) == ("http://192.0.2.7:8470", "http://192.0.2.7:8471")
    assert (chosen.mlflow_url, chosen.prefect_url) == (settings.mlflow_url, settings.prefect_url)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_an_address_nobody_can_open_is_refused(settings: Settings, host: str) -> None:
    """Links to pictures would carry it."""
    with pytest.raises(UsageError, match="no address people can open"):
        choose_ports(settings, host=host)


def test_an_address_that_cannot_be_served_here_is_refused(settings: Settings, environment: dict[str, str]) -> None:
    """TLS ends at a proxy in front, not here."""
    elsewhere = settings.model_copy(update={"mlflow_url": "https://mlflow.example"})
    with pytest.raises(UsageError, match=r"https://mlflow\.example cannot be served here"):
        compose(elsewhere, environment=environment)


def test_a_temporary_state_has_secrets_of_its_own_and_is_removed(settings: Settings) -> None:
    """Another folder is left alone."""
    with temporary_settings() as own:
        assert own.secrets != settings.secrets
        assert str(own.state) in own.database_url
        assert (own.state / "settings.json").exists()
    assert not own.state.exists()
    assert settings.state.exists()
