"""When counts differ: every task of the project compared with our answers, and what is different read in full.

Invariants: this writes nothing; a task we hold answers to and the server does not know is gone; answers to tasks without
a row of ours are foreign. Most answers gone at once is taken for a lost server, not for operators' wishes.
"""

from collections import Counter
from dataclasses import dataclass

from inspection.data.product import Product
from inspection.errors import IntegrityError
from inspection.labelling.answers import namespace, task_of
from inspection.labelling.merge import known_keys, live_answers
from inspection.labelling.port import LabelStudio, StudioTask, TaskState
from inspection.store.session import Store

_MANY = 20  # answers that may go at once without a question
_SHARE = 0.5  # of all answers


@dataclass(frozen=True)
class Difference:
    """Tasks whose number of answers differs, ids of answered tasks that are gone, answers to others' tasks."""

    tasks: tuple[StudioTask, ...] = ()
    gone: frozenset[int] = frozenset()
    foreign: int = 0


def find_differences(
    store: Store, studio: LabelStudio, product: Product, project_id: int, *, allow_mass_retraction: bool
) -> Difference:
    """Compare every task. Raises IntegrityError when most of our answers would be retracted."""
    space = namespace(studio.counts(project_id).created_at)
    states = list(studio.task_states(project_id))
    with store.begin(read_only=True) as session:
        live = live_answers(session, product, space)
        keys = known_keys(session, product)
    ours = Counter(task_of(origin) for origin in live)
    own = [state for state in states if state.key in keys]
    differ = [state.id for state in own if state.answers != ours.get(state.id, 0)]
    gone = frozenset(ours) - {state.id for state in states}
    if not allow_mass_retraction:
        _check_loss(product, ours, own, gone)
    foreign = sum(state.answers for state in states if state.key not in keys)
    return Difference(tuple(studio.read_tasks(project_id, differ)), gone, foreign)


def _check_loss(product: Product, ours: Counter[int], own: list[TaskState], gone: frozenset[int]) -> None:
    """Answers that would be retracted: all of a gone task, the surplus of the others."""
    lost = sum(ours[task] for task in gone) + sum(max(0, ours[s.id] - s.answers) for s in own)
    total = ours.total()
    if lost > _MANY and lost > _SHARE * total:
        raise IntegrityError(
            f"Label Studio lost {lost} of the {total} answers we hold for {product.name}. If its database was lost or put "
            "back to an older state, restore it; if they were deleted on purpose, run `inspection pull-labels "
            f"--product {product.name} --allow-mass-retraction`. Nothing was changed here"
        )
