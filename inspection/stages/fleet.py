"""What a person may do to a running rollout."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from inspection.release import rollout
from inspection.release.signing import load_or_create_keys
from inspection.settings import Settings
from inspection.stages.deploy import RolloutView, rollout_state
from inspection.store.session import Store


def pause(settings: Settings, store: Store, product: str) -> RolloutView:  # noqa: ARG001 - one shape for all commands
    """Assign nothing further. UsageError when nothing is running."""
    with store.begin() as session:
        rollout.pause(session, product)
    return rollout_state(store, product)


def resume(settings: Settings, store: Store, product: str) -> RolloutView:  # noqa: ARG001 - one shape for all commands
    """Carry on. UsageError when nothing is paused."""
    with store.begin() as session:
        rollout.resume(session, product, datetime.now(UTC))
    return rollout_state(store, product)


def abort(settings: Settings, store: Store, product: str) -> RolloutView:
    """Emergency stop: every station that was moved goes back, by a higher serial."""
    keys = load_or_create_keys(settings.keys)
    with store.begin() as session:
        rollout.abort(session, keys, product, "stopped by hand", datetime.now(UTC))
    return rollout_state(store, product)


def status(settings: Settings, store: Store, product: str) -> RolloutView:  # noqa: ARG001 - one shape for all commands
    """The newest rollout."""
    return rollout_state(store, product)


COMMANDS: Mapping[str, Callable[[Settings, Store, str], RolloutView]] = {
    "pause": pause,
    "resume": resume,
    "abort": abort,
    "status": status,
}
