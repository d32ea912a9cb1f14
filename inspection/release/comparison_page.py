"""A comparison as one HTML file that opens without a server: the conclusion first, then curves, device, every figure."""

import io
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from inspection.release.comparison import Device, Standing, Trial, budget_in_words, pareto

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined
)
_MARKERS = "osD^vP*Xh<>8p"


def page(
    product: str,
    snapshot: str,
    recipe: str,
    standings: Sequence[Standing],
    trials: Sequence[Trial],
    devices: Sequence[Device],
    said: Sequence[str],
) -> str:
    """The whole page. ``recipe``: how all were trained, in words; ``standings`` are of ``trials``, smallest budget first;
    ``said`` is their conclusion."""
    last = standings[-1]
    return _TEMPLATES.get_template("comparison.html").render(
        product=product,
        snapshot=snapshot,
        recipe=recipe,
        judged=len(trials[0].parts),
        parts=len(set(trials[0].parts)),
        seeds=len({t.seed for t in trials}),
        said=said,
        curves=_svg(curves_figure(standings)),
        pareto=_svg(pareto_figure(last, devices)) if devices else "",
        largest=budget_in_words(last.budget, last.pictures),
        devices=_device_rows(last, devices),
        standings=[_table(standing, trials) for standing in reversed(standings)],
    )


def _device_rows(standing: Standing, devices: Sequence[Device]) -> list[dict[str, Any]]:
    kept = pareto(standing, devices)
    return [
        {
            "backbone": d.backbone,
            "kept": d.backbone in kept,
            "figure": f"{standing.figures[d.backbone].value:.1%}",
            "float_ms": f"{d.float_ms:.2f}",
            "int8_ms": d.in_int8,
            "int8_equal": "" if d.int8_equal is None else f"{d.int8_equal:.1%}",
            "counts": not d.why,
            "float_mb": f"{d.float_bytes / 1e6:.1f}",
            "int8_mb": "" if d.int8_bytes is None else f"{d.int8_bytes / 1e6:.1f}",
        }
        for d in sorted(devices, key=lambda d: d.best_ms)
        if d.backbone in standing.figures
    ]


def _table(standing: Standing, trials: Sequence[Trial]) -> dict[str, Any]:
    leads = {lead.other: lead for lead in standing.leads}
    rows = []
    for name, figure in standing.figures.items():
        own = [t for t in trials if t.backbone == name and t.budget == standing.budget]
        kind = "best" if name == standing.best else "level" if name in standing.level else "beaten"
        lead = leads.get(name)
        rows.append(
            {
                "backbone": name,
                "kind": kind,
                "figure": str(figure),
                "lead": "" if lead is None else f"{lead.points:.1f} ({lead.low:.1f} to {lead.high:.1f})",
                "seconds": f"{fmean(t.seconds for t in own):.0f}",
                "began": own[0].began,
            }
        )
    return {"at": budget_in_words(standing.budget, standing.pictures), "rows": rows}


def curves_figure(standings: Sequence[Standing]) -> Figure:
    """Each network's figure with its interval, over the number of training pictures."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    names = list(standings[-1].figures)
    spread = 0.012  # networks stand side by side, so that their intervals can be told apart
    for number, name in enumerate(names):
        known = [s for s in standings if name in s.figures]
        places = [s.pictures * (1 + spread * (number - len(names) / 2)) for s in known]
        found = [s.figures[name] for s in known]
        values = [100 * f.value for f in found]
        below, above = [100 * (f.value - f.low) for f in found], [100 * (f.high - f.value) for f in found]
        marker = _MARKERS[number % len(_MARKERS)]
        axes.errorbar(places, values, [below, above], marker=marker, capsize=2, label=name, linewidth=1.2, elinewidth=0.7)
    axes.set(xscale="log", xlabel="training pictures", ylabel="balanced accuracy, %")
    ticks = [s.pictures for s, more in zip(standings, [*standings[1:], None], strict=True) if _apart(s, more)]
    axes.set_xticks(ticks, [str(pictures) for pictures in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure


def _apart(standing: Standing, more: Standing | None) -> bool:
    """Whether there is room for its number on the axis before the next one's."""
    return more is None or more.pictures > 1.05 * standing.pictures


def pareto_figure(standing: Standing, devices: Sequence[Device]) -> Figure:
    """The figure of each network over the milliseconds of its faster file, and the line of those nothing beats in both."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.add_subplot()
    known = {d.backbone: d for d in devices if d.backbone in standing.figures}
    for name, device in known.items():
        found = standing.figures[name]
        spread = [[100 * (found.value - found.low)], [100 * (found.high - found.value)]]
        axes.errorbar(device.best_ms, 100 * found.value, spread, marker="o", capsize=2, elinewidth=0.7, color="#2b6cb0")
        axes.annotate(
            name, (device.best_ms, 100 * found.value), xytext=(6, 4), textcoords="offset points", fontsize="small"
        )
    line = pareto(standing, devices)
    axes.plot(
        [known[name].best_ms for name in line], [100 * standing.figures[name].value for name in line],
        drawstyle="steps-post", color="#2b6cb0", alpha=0.5,
    )  # fmt: skip
    axes.set(xscale="log", xlabel="milliseconds of the faster file, one thread", ylabel="balanced accuracy, %")
    for place in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        place(StrMethodFormatter("{x:g}"))
    axes.margins(x=0.15)
    axes.grid(alpha=0.3)
    return figure


def _svg(figure: Figure) -> Markup:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return Markup(text.getvalue().partition("<svg")[1] + text.getvalue().partition("<svg")[2])  # noqa: S704 - our own
