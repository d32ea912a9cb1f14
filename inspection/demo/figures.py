"""Where the closing report's figures come from: each is asked of the server, the ledger or the agent that knows it."""

from collections.abc import Sequence

from inspection.contracts import Report
from inspection.data.product import Product
from inspection.demo.report import AgentFigures, BundleFigures, LabelStudioFigures, MlflowFigures
from inspection.labelling.port import Counts
from inspection.labelling.project import ensure_project
from inspection.labelling.studio import connect
from inspection.release.registry import Registry, edge_name
from inspection.settings import Settings
from inspection.stages.candidate import candidate_of_bundle
from inspection.store.session import Store
from inspection.store.tables import DeviceRow


def project_of(settings: Settings, product: Product) -> int:
    """The product's project in Label Studio."""
    with connect(settings.label_studio_url, settings.secrets.label_studio_token.get_secret_value()) as studio:
        return ensure_project(studio, product)


def counts(settings: Settings, project: int) -> Counts:
    """What Label Studio itself counts in a project."""
    with connect(settings.label_studio_url, settings.secrets.label_studio_token.get_secret_value()) as studio:
        return studio.counts(project)


def progress(settings: Settings, project: int) -> tuple[int, int]:
    """How many tasks are answered, and how many wait for an answer (skipped ones do neither)."""
    with connect(settings.label_studio_url, settings.secrets.label_studio_token.get_secret_value()) as studio:
        states = list(studio.task_states(project))
    answered = sum(bool(state.answers) for state in states)
    return answered, sum(not state.answers and not state.cancelled for state in states)


def label_studio(settings: Settings, product: Product) -> LabelStudioFigures:
    """Tasks and annotations at the end."""
    found = counts(settings, project_of(settings, product))
    return LabelStudioFigures(tasks=found.tasks, annotations=found.answers)


def mlflow(settings: Settings, product: str) -> MlflowFigures:
    """Registered versions of the edge model, and the champion's."""
    registry = Registry(settings.mlflow_url)
    name = edge_name(product)
    return MlflowFigures(versions=len(registry.versions(name)), champion=registry.aliases(name).get("champion"))


def bundle(settings: Settings, digest: str) -> BundleFigures:
    """What was measured of the shipped file."""
    shipped = candidate_of_bundle(settings, digest).shipped
    if shipped is None:
        raise ValueError(f"bundle {digest[:12]} was shipped without being measured")
    return BundleFigures(
        digest=digest,
        precision=shipped.precision,
        latency_ms=shipped.latency_ms,
        float_latency_ms=shipped.float_latency_ms,
        agreement=shipped.agreement,
        bytes=shipped.length,
        float_bytes=shipped.float_length,
    )


def agents(store: Store, stations: Sequence[str]) -> list[AgentFigures]:
    """The agents' own last word."""
    found = []
    with store.begin(read_only=True) as session:
        for row in session.query(DeviceRow).where(DeviceRow.station.in_(stations)).order_by(DeviceRow.station):
            report = Report.model_validate(row.report)
            found.append(
                AgentFigures(
                    name=row.name,
                    station=row.station,
                    digest=report.bundle_digest,
                    verdicts_by_digest=report.verdicts_by_digest,
                    ledger_closes=report.ledger.closes,
                )
            )
    return found
