"""How Label Studio is started here: one command line and one set of environment variables, both pure.

Invariants: it listens on loopback unless told otherwise; sign-up, analytics, error reporting, version checks and local
file serving are off; no secret is on the command line, where every user of the machine could read it. Pictures are
fetched by the operator's browser only: the server's own protection against fetching inner addresses stays on.
"""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from inspection.errors import UsageError

LOOPBACK = "127.0.0.1"


def label_studio_command(executable: Path | str, port: int, *, host: str = LOOPBACK) -> list[str]:
    """The command line. ``executable`` is ``label-studio``; ``host`` is the address it binds to.

    Label Studio silently takes the next free port when ``port`` is taken: check that it is free before starting.
    """
    return [str(executable), "start", "--no-browser", "--internal-host", host, "--port", str(port)]


def label_studio_environment(
    data_dir: Path | str,
    user: str,
    password: str,
    token: str,
    *,
    allowed_hosts: Sequence[str] = (LOOPBACK, "localhost"),
    database_url: str | None = None,
) -> dict[str, str]:
    """The variables to add to a minimal environment (PATH, HOME, LANG).

    ``user`` (an e-mail address), ``password`` and ``token`` (40 hexadecimal digits) take effect at the first start on
    a ``data_dir``; later starts keep what the database holds. ``allowed_hosts`` are the names people may use in the
    address bar. ``database_url`` is ``postgresql://user:password@host:port/name``, or None for SQLite in ``data_dir``
    (UsageError for another kind).
    """
    return {
        "LABEL_STUDIO_BASE_DATA_DIR": str(data_dir),
        "LABEL_STUDIO_USERNAME": user,
        "LABEL_STUDIO_PASSWORD": password,
        "LABEL_STUDIO_USER_TOKEN": token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_HOST": "",  # an unprefixed HOST of the surrounding shell would be taken otherwise
        "LABEL_STUDIO_ALLOWED_HOSTS": ",".join(allowed_hosts),
        **_LOCKED_DOWN,
        **_database(database_url),
    }


_LOCKED_DOWN = {
    "LABEL_STUDIO_DEBUG": "false",
    "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
    "LABEL_STUDIO_CORS_ALLOW_ALL_ORIGINS": "false",
    "LABEL_STUDIO_COLLECT_ANALYTICS": "false",
    "LABEL_STUDIO_LATEST_VERSION_CHECK": "false",
    "LABEL_STUDIO_SENTRY_DSN": "",
    "LABEL_STUDIO_FRONTEND_SENTRY_DSN": "",
    "LABEL_STUDIO_FEATURE_FLAGS_OFFLINE": "true",
    "LABEL_STUDIO_ENABLE_LOCAL_FILES_STORAGE": "false",
    "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "false",
    "LABEL_STUDIO_CONVERTER_DOWNLOAD_RESOURCES": "false",
    "LABEL_STUDIO_SSRF_PROTECTION_ENABLED": "true",
    "LABEL_STUDIO_ML_BLOCK_LOCAL_IP": "true",
}


def _database(url: str | None) -> dict[str, str]:
    if url is None:
        return {"LABEL_STUDIO_DJANGO_DB": "sqlite"}
    parts = urlsplit(url)
    if parts.scheme.partition("+")[0] not in {"postgresql", "postgres"} or not parts.hostname:
        raise UsageError(
            f"label_studio_database: Label Studio cannot keep its tasks in a {parts.scheme or 'nameless'!r} database; "
            "give postgresql://user:password@host:port/name, or nothing for SQLite"
        )
    return {
        "LABEL_STUDIO_DJANGO_DB": "default",
        "LABEL_STUDIO_POSTGRE_USER": unquote(parts.username or "postgres"),
        "LABEL_STUDIO_POSTGRE_PASSWORD": unquote(parts.password or ""),
        "LABEL_STUDIO_POSTGRE_HOST": parts.hostname,
        "LABEL_STUDIO_POSTGRE_PORT": str(parts.port or 5432),
        "LABEL_STUDIO_POSTGRE_NAME": parts.path.lstrip("/"),
    }
