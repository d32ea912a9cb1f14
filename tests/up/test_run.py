"""What `inspection up` prints."""

import io
import os
import signal

from rich.console import Console

from inspection.settings import Settings
from inspection.up.run import run_up

EVERYTHING = {"hub", "label-studio", "mlflow", "prefect", "flows"}


def test_up_prints_the_code_devices_enrol_with(settings: Settings) -> None:
    """On a terminal of any width it stays whole: the hub's refusal of a wrong code sends people here."""
    said = io.StringIO()
    console = Console(file=said, width=20)

    def leave(services: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    assert run_up(settings, environment={}, without=EVERYTHING, console=console, on_ready=leave) == 0
    assert settings.secrets.enrolment_code.get_secret_value() in said.getvalue()
