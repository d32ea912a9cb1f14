"""Cron expressions: five fields, as every scheduler understands them."""

from datetime import datetime

from cronsim import CronSim, CronSimError

from inspection.data.product import SchedulePlan

_FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")
_SOME_DAY = datetime(2026, 1, 1)  # noqa: DTZ001 - a schedule is looked at, not run: no zone is needed


def fault_of(expression: str) -> str | None:
    """What is wrong with a cron expression, as half a sentence; None when it is sound and comes up some day."""
    count = len(expression.split())
    if count != len(_FIELDS):  # some programs take seconds too, others do not
        return f"has {count} fields instead of five: {', '.join(_FIELDS)}"
    try:
        next(CronSim(expression.strip(), _SOME_DAY))
    except CronSimError as error:
        return f"cannot be read ({error}): give {', '.join(_FIELDS)}"
    except StopIteration:
        return "never comes up"
    return None


def faults_of(plan: SchedulePlan) -> list[str]:
    """What nobody can run, in words. Not asked when a kept document is read: one bad schedule must stop no other."""
    found = ((name, getattr(plan, name)) for name in type(plan).model_fields)
    return [f"schedule.{name} {text!r} {fault}" for name, text in found if (fault := fault_of(text))]
