"""What is wrong with this agent, in words, with the next step; and its state for `status`."""

import shutil
from pathlib import Path

from edge_agent.agent import policy_of
from edge_agent.config import CONFIG_NAME, AgentConfig
from edge_agent.database import DATABASE_NAME, Database
from edge_agent.errors import AgentError
from edge_agent.journal import Journal
from edge_agent.outbox import Outbox
from edge_agent.shelf import Shelf
from edge_agent.transport import Transport
from edge_agent.updater import MakeRuntime, Updater


def status(state: Path, config: AgentConfig) -> dict[str, object]:
    """What the state folder says: assignment, bundle, ledger, what waits. Reads only; the agent may be running."""
    limits = config.limits
    installed = Shelf(state).installed()
    database = Database(state / DATABASE_NAME)
    try:
        journal = Journal(database, max_pending=limits.outbox_max_verdicts, keep_rows=limits.journal_keep_rows)
        outbox = Outbox(database, state / "outbox", max_bytes=limits.outbox_max_bytes, min_free_bytes=0)
        ledger = journal.ledger()
        return {
            "device": config.enrolment.device,
            "station": config.enrolment.station,
            "serial": installed.seen_serial,
            "bundle": installed.current.bundle if installed.current else None,
            "recipe": installed.current.recipe if installed.current else None,
            "probation": installed.probation,
            "refused": installed.refused,
            "ledger": ledger.model_dump(),
            "ledger_closes": ledger.closes,
            "verdicts_by_digest": journal.verdicts_by_digest(),
            "pictures_waiting": outbox.depth(),
            "free_disk_bytes": outbox.free_disk_bytes(),
            "counters": journal.counters(),
        }
    finally:
        database.close()


def problems(state: Path, config: AgentConfig, transport: Transport, make_runtime: MakeRuntime) -> list[str]:
    """Everything found wrong; empty when all is well."""
    found = _file_problems(state, config)
    try:
        transport.assignment()
    except AgentError as error:
        found.append(f"hub: {error}. Check {config.hub} from this computer's browser, then the network cable.")
    try:
        facts = status(state, config)
    except AgentError as error:
        return [*found, f"state: {error}."]
    if not facts["ledger_closes"]:
        found.append("ledger: the counts do not add up. Keep journal.db and call whoever maintains this agent.")
    return found + _bundle_problems(state, config, transport, make_runtime)


def _file_problems(state: Path, config: AgentConfig) -> list[str]:
    found = []
    if (state / CONFIG_NAME).stat().st_mode & 0o077:
        found.append(f"{state / CONFIG_NAME} can be read by others and holds a secret. Run: chmod 600 {CONFIG_NAME}")
    free = shutil.disk_usage(state).free
    if free < config.limits.min_free_disk_bytes:
        found.append(f"disk: only {free // 2**20} MiB are free. Delete something, or lower outbox_max_bytes.")
    if config.camera is None:
        found.append("camera: none is configured. Give --camera folder:DIR or opencv:0 to `edge-agent run`.")
    elif config.camera.startswith("folder:") and not Path(config.camera.removeprefix("folder:")).is_dir():
        found.append(f"camera: {config.camera} is no folder. Create it, or enrol with the right --camera.")
    return found


def _bundle_problems(state: Path, config: AgentConfig, transport: Transport, make_runtime: MakeRuntime) -> list[str]:
    found = []
    shelf = Shelf(state)
    current = shelf.installed().current
    if current is None or current.bundle is None:
        found.append("bundle: none is installed, so nothing can be judged OK. Assign one to this station at the hub.")
        return found
    try:
        Updater(shelf, transport, policy_of(config), make_runtime).check(current)
    except AgentError as error:
        found.append(f"bundle: {error}. The agent fetches it again by itself when the hub can be reached.")
    return found
