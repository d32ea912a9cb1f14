"""Rendering: templates with everything escaped, and headers that let a page load nothing from elsewhere.

Invariant: a page needs no script and no other host; part ids and class names are text, whatever characters they hold.
"""

from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from inspection.store.tables import utc_now

_TEMPLATES = Path(__file__).parent / "templates"
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "img-src 'self'",
        "style-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
_HEADERS = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"}
_STEPS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def passport_href(part: str) -> str:
    """The address of a part's passport. Names of dots only would be folded away by a browser: those go as a query."""
    if not part.strip("."):
        return f"/parts?part={quote(part, safe='')}"
    return f"/parts/{quote(part, safe='')}"


def ago(then: datetime | None) -> str:
    """How long ago, in its largest unit: ``4 min ago``; ``never`` for None."""
    if then is None:
        return "never"
    seconds = int((utc_now() - then).total_seconds())
    for size, unit in _STEPS:
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return "just now"


def stamp(then: datetime | None) -> str:
    """Date and time in UTC, to the second."""
    return f"{then:%Y-%m-%d %H:%M:%S} UTC" if then else ""


def short(digest: str | None) -> str:
    """The first twelve digits of a digest; a dash for None."""
    return digest[:12] if digest else "\N{EN DASH}"


def percent(share: float) -> str:
    """A share in [0, 1] as per cent, with two digits below ten."""
    value = 100 * share
    return f"{value:.2f} %" if value < 10 else f"{value:.1f} %"


def count(number: int) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def size(length: int) -> str:
    """Bytes in a unit a person reads."""
    value = float(length)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(ago=ago, stamp=stamp, short=short, percent=percent, n=count, size=size, passport=passport_href)
    return made


def page(template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Render a template of `hub/templates` as a page."""
    content = _environment().get_template(template).render(**values)
    return HTMLResponse(content, status, headers=_HEADERS)
