"""The one place that names the programs of the embedded set, their command lines, environments and order.

Invariants: only what must be reached from outside this machine (hub, Label Studio) ever binds to anything but loopback,
and only when its URL in the settings says so; no secret is on a command line; programs of others get a minimal
environment, so that variables of the surrounding shell do not change them.
"""

import importlib.util
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import inspection
from inspection.errors import EnvironmentTroubleError, UsageError
from inspection.labelling.server import label_studio_command, label_studio_environment
from inspection.settings import ENV_PREFIX, Settings, load_settings, save_settings
from inspection.up.machine import Problem, free_ports
from inspection.up.service import FileHealth, HttpHealth, Service

LABEL_STUDIO_VARIABLE = ENV_PREFIX + "LABEL_STUDIO"
LABEL_STUDIO_DATABASE = "label_studio.sqlite3"
FLOWS_READY = Path("run") / "flows.ready"
FLOWS_MAX_AGE_SECONDS = 45.0  # it is touched every 5 s; a machine under load may be late
_URLS = ("hub_url", "label_studio_url", "mlflow_url", "prefect_url")
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "VIRTUAL_ENV")
_FOREIGN = ("PREFECT_", "MLFLOW_", "LABEL_STUDIO_")  # variables of a surrounding shell that would change our programs
_ROOT = Path(inspection.__file__).parents[1]


def compose(settings: Settings, *, environment: Mapping[str, str], without: Collection[str] = ()) -> tuple[Service, ...]:
    """All programs of the embedded set but those named in ``without``, in starting order.

    ``environment`` is that of the entry point. EnvironmentTroubleError when a program is not installed.
    """
    makers = {
        "hub": _hub,
        "label-studio": _label_studio,
        "mlflow": _mlflow,
        "prefect": _prefect,
        "flows": _flows,
    }
    if unknown := set(without) - set(makers):
        raise UsageError(f"no program is called {', '.join(sorted(unknown))}; there are {', '.join(makers)}")
    return tuple(make(settings, environment) for name, make in makers.items() if name not in without)


def find_label_studio(environment: Mapping[str, str]) -> Path | Problem:
    """The ``label-studio`` program: ``$ESCAPEMENT_LABEL_STUDIO``, an environment next to us, or on PATH."""
    named = environment.get(LABEL_STUDIO_VARIABLE)
    if named:
        candidates = [Path(named)]
    else:
        candidates = [place / ".venv-label-studio" / "bin" / "label-studio" for place in (Path.cwd(), _ROOT)]
        on_path = shutil.which("label-studio", path=environment.get("PATH", ""))
        candidates += [Path(on_path)] if on_path else []
    for candidate in candidates:
        if candidate.is_file():
            return candidate.absolute()
    return Problem(
        "the program label-studio is missing",
        f"not found at {', '.join(map(str, candidates))}" + ("" if named else " nor on PATH"),
        f"Install it with `make label-studio`, or name it in {LABEL_STUDIO_VARIABLE}",
    )


def seed_of(executable: Path) -> Path:
    """Where `make label-studio` keeps an empty, migrated database: making one takes half a minute of computing."""
    return executable.parent.parent / "fresh" / LABEL_STUDIO_DATABASE


def missing_modules() -> list[Problem]:
    """The parts of the ``server`` extra that are not installed here."""
    return [
        Problem(
            f"the Python package {name} is missing",
            f"this Python ({sys.executable}) does not have it",
            "Run `make install` in the checkout, or `pip install '.[server,train]'` there",
        )
        for name in ("mlflow", "prefect", "uvicorn", "fastapi")
        if importlib.util.find_spec(name) is None
    ]


def choose_ports(settings: Settings, *, free: bool = True, host: str | None = None) -> Settings:
    """Settings with free ports (``free``) and with hub and Label Studio at ``host``; written to ``settings.json``.

    ``host`` is the address of this machine that people and devices use. MLflow and Prefect have no log-in of their own
    and stay where they are (loopback). UsageError for a wildcard address, which nobody can open.
    """
    if host in {"0.0.0.0", "::", "*", ""}:  # noqa: S104 - refused, not bound
        raise UsageError(f"{host!r} is no address people can open: give the address of this machine in your network")
    ports = free_ports("127.0.0.1", len(_URLS)) if free else [_place(getattr(settings, u))[1] for u in _URLS]
    hosts = [_place(getattr(settings, url))[0] for url in _URLS]
    if host is not None:
        hosts[:2] = [host, host]
    urls = {u: f"http://{_bracketed(h)}:{p}" for u, h, p in zip(_URLS, hosts, ports, strict=True)}
    chosen = settings.model_copy(update=urls)
    chosen.state.mkdir(parents=True, exist_ok=True)
    save_settings(chosen)
    return chosen


@contextmanager
def temporary_settings() -> Iterator[Settings]:
    """Settings of a new temporary state folder with free ports and secrets of its own; the folder is removed at the end."""
    with TemporaryDirectory(prefix="escapement-") as folder:
        yield choose_ports(load_settings(Path(folder), {}), free=True)


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or not parts.port:
        raise UsageError(f"{url} cannot be served here: give http://<address of this machine>:<port>")
    return parts.hostname, parts.port


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _minimal(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        **{k: environment[k] for k in _KEPT if k in environment},
        "PYTHONUNBUFFERED": "1",
        "MALLOC_ARENA_MAX": "2",  # threaded servers otherwise keep a heap per thread
    }


def _own(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of our own programs: all that the entry point had, and our settings spelled out."""
    inherited = {k: v for k, v in environment.items() if not k.startswith(_FOREIGN)}
    fields = settings.model_dump(mode="json", exclude={"secrets", "state"}, exclude_none=True)
    path = [str(_ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    return {
        **inherited,
        **{ENV_PREFIX + name.upper(): str(value) for name, value in fields.items()},
        ENV_PREFIX + "STATE": str(settings.state),
        "PYTHONPATH": ":".join(path),
        "PYTHONUNBUFFERED": "1",
    }


def _python(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-m", *arguments)  # -P: a file in the working folder must not hide a module


def _folder(settings: Settings, name: str) -> Path:
    return settings.state.absolute() / name


def _hub(settings: Settings, environment: Mapping[str, str]) -> Service:
    host, port = _place(settings.hub_url)
    return Service(
        name="hub",
        title="Hub",
        command=_python("inspection.hub", "--state", str(settings.state)),
        env=_own(settings, environment) | {"MALLOC_ARENA_MAX": "2"},
        cwd=_folder(settings, "work"),
        health=HttpHealth(f"{settings.hub_url}/healthz"),
        host=host,
        port=port,
        address=settings.hub_url,
        login=f"{settings.console_user} / {settings.secrets.console_password.get_secret_value()}",
    )


def _label_studio(settings: Settings, environment: Mapping[str, str]) -> Service:
    executable = find_label_studio(environment)
    if isinstance(executable, Problem):
        raise EnvironmentTroubleError(str(executable))
    host, port = _place(settings.label_studio_url)
    folder = _folder(settings, "label-studio")
    password = settings.secrets.label_studio_password.get_secret_value()
    extra = label_studio_environment(
        folder,
        settings.label_studio_user,
        password,
        settings.secrets.label_studio_token.get_secret_value(),
        allowed_hosts=list(dict.fromkeys([host, "127.0.0.1", "localhost"])),
        database_url=settings.label_studio_database,
    )
    return Service(
        name="label-studio",
        title="Label Studio",
        command=tuple(label_studio_command(executable, port, host=host)),
        env=_minimal(environment) | extra,
        cwd=folder,
        health=HttpHealth(f"{settings.label_studio_url}/health"),
        ready_seconds=300.0,  # the first start makes its database
        host=host,
        port=port,
        address=settings.label_studio_url,
        login=f"{settings.label_studio_user} / {password}",
        seed=None if settings.label_studio_database else (seed_of(executable), folder / LABEL_STUDIO_DATABASE),
    )


def _mlflow(settings: Settings, environment: Mapping[str, str]) -> Service:
    host, port = _place(settings.mlflow_url)
    folder = _folder(settings, "mlflow")
    command = _python("mlflow", "server", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}")
    command += ("--artifacts-destination", str(folder / "artifacts"), "--workers", "1")
    return Service(
        name="mlflow",
        title="MLflow",
        command=(*command, "--host", host, "--port", str(port)),
        env=_minimal(environment) | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        cwd=folder,
        health=HttpHealth(f"{settings.mlflow_url}/health"),
        host=host,
        port=port,
        address=settings.mlflow_url,
    )


def _prefect(settings: Settings, environment: Mapping[str, str]) -> Service:
    host, port = _place(settings.prefect_url)
    folder = _folder(settings, "prefect")
    extra = {
        "PREFECT_HOME": str(folder),
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder / 'prefect.db'}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_API_URL": "/api",  # where its pages ask: by default port 4200, whatever port it serves
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # Its API has no log-in: by default any web page open in a browser of this machine could use it.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": settings.prefect_url,
        "DO_NOT_TRACK": "1",
    }
    return Service(
        name="prefect",
        title="Prefect",
        command=_python("prefect", "--no-prompt", "server", "start", "--host", host, "--port", str(port)),
        env=_minimal(environment) | extra,
        cwd=folder,
        health=HttpHealth(f"{settings.prefect_url}/api/health"),
        host=host,
        port=port,
        address=settings.prefect_url,
    )


def _flows(settings: Settings, environment: Mapping[str, str]) -> Service:
    extra = {
        "PREFECT_API_URL": f"{settings.prefect_url}/api",
        "PREFECT_HOME": str(_folder(settings, "prefect")),
        "MLFLOW_TRACKING_URI": settings.mlflow_url,
        "OMP_WAIT_POLICY": "PASSIVE",  # a training that spins while it waits starves the servers beside it, and itself
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }
    return Service(
        name="flows",
        title="Flows",
        command=_python("pipelines.deployments"),
        env=_own(settings, environment) | extra,
        cwd=_folder(settings, "work"),
        health=FileHealth(_folder(settings, str(FLOWS_READY)), FLOWS_MAX_AGE_SECONDS),
        depends_on=("prefect", "hub"),
    )
