"""MLflow's aliases follow our promotion ledger. Loads no torch, so that a look every few minutes stays cheap."""

from inspection.release.registry import Registry
from inspection.settings import Settings
from inspection.store.session import Store


def project_aliases(settings: Settings, store: Store, product: str) -> None:
    """Make MLflow's aliases say what our promotion ledger says, whoever moved them. Raises ServerError."""
    with store.begin(read_only=True) as session:
        Registry(settings.mlflow_url).project_aliases(session, product)
