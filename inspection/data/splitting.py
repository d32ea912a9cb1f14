"""Which side a group of parts goes to. Pure: sides so far and groups in, sides of the new groups out.

Invariants: a group that has a side keeps it; groups that are linked go together where they still can; the answer depends
on the groups and sides given, not on their order.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from inspection.data.product import RetrainPlan
from inspection.data.snapshot_record import Split

# On equal need a class's first pictures go to training, then to judging, then to validation.
_ORDER = (Split.TRAIN, Split.GOLDEN, Split.VALIDATION)


@dataclass
class Group:
    """Pictures that are never divided: how many of each class, and the side an importer asked for (by how many)."""

    name: str
    classes: Counter[str] = field(default_factory=Counter)
    asked: Counter[Split] = field(default_factory=Counter)

    def side_asked(self) -> Split | None:
        """The side most of its pictures ask for; on a tie the earlier of train, golden, validation."""
        if not self.asked:
            return None
        return max(_ORDER, key=lambda side: self.asked[side])


def assign(
    groups: Iterable[Group],
    links: Iterable[tuple[str, str]],
    sides: Mapping[str, Split],
    plan: RetrainPlan,
    salt: str,
) -> dict[str, Split]:
    """Sides of the groups that have none yet.

    What an importer asked for is granted; where it knows no validation, its "train" means "not golden" and is dealt to
    both. The groups left, linked ones as one, are dealt class by class, the rarest class first, each to the side that
    lacks most of that class by its share (Sainte-Lague's method: the smallest ``(have + half) / share``), in the order
    of a hash of ``salt`` and their names. A linked set of which a part has a side already follows it.
    """
    by_name = {group.name: group for group in sorted(groups, key=lambda g: g.name)}
    allowed = _allowed(by_name)
    given = {name: next(iter(may)) for name, may in allowed.items() if len(may) == 1} | dict(sides)
    have = _count(by_name, given)
    total = sum((group.classes for group in by_name.values()), Counter[str]())
    for cluster in _dealing_order(_clusters(by_name, list(links), given, allowed), total, salt):
        side = cluster.follows or _neediest(have, cluster, total, shares(plan))
        given |= dict.fromkeys(cluster.names, side)
        have[side].update(cluster.classes)
    return {name: side for name, side in given.items() if name not in sides}


def shares(plan: RetrainPlan) -> dict[Split, float]:
    """The share of each side; training gets the rest."""
    rest = 1.0 - plan.validation_share - plan.golden_share
    return {Split.TRAIN: rest, Split.GOLDEN: plan.golden_share, Split.VALIDATION: plan.validation_share}


@dataclass
class _Cluster:
    """Linked groups without a side, their classes together, where they may go, and the side they follow, if any."""

    names: list[str]
    classes: Counter[str]
    allowed: frozenset[Split]
    follows: Split | None

    def rarest(self, total: Counter[str]) -> str:
        return min(self.classes, key=lambda name: (total[name], name))


def _allowed(groups: Mapping[str, Group]) -> dict[str, frozenset[Split]]:
    """The sides each group may go to."""
    knows_validation = any(group.asked[Split.VALIDATION] for group in groups.values())
    train = frozenset({Split.TRAIN} if knows_validation else {Split.TRAIN, Split.VALIDATION})
    may = {None: frozenset(_ORDER), Split.TRAIN: train}
    may |= {side: frozenset({side}) for side in (Split.VALIDATION, Split.GOLDEN)}
    return {name: may[group.side_asked()] for name, group in groups.items()}


def _count(groups: Mapping[str, Group], sides: Mapping[str, Split]) -> dict[Split, Counter[str]]:
    have: dict[Split, Counter[str]] = {side: Counter() for side in _ORDER}
    for name, group in groups.items():
        if name in sides:
            have[sides[name]].update(group.classes)
    return have


def _clusters(
    groups: Mapping[str, Group],
    links: Sequence[tuple[str, str]],
    sides: Mapping[str, Split],
    allowed: Mapping[str, frozenset[Split]],
) -> list[_Cluster]:
    pulls: dict[str, set[Split]] = defaultdict(set)
    for first, second in links:
        for mine, other in ((first, second), (second, first)):
            if other in sides:
                pulls[mine].add(sides[other])
    clusters = []
    for names in _joined([name for name in groups if name not in sides], links):
        classes = sum((groups[name].classes for name in names), Counter[str]())
        may = frozenset.intersection(*(allowed[name] for name in names))
        pulled = {side for name in names for side in pulls[name]} & may
        clusters.append(_Cluster(names, classes, may, next((side for side in _ORDER if side in pulled), None)))
    return clusters


def _joined(names: Sequence[str], links: Sequence[tuple[str, str]]) -> list[list[str]]:
    """The names, linked ones together (union-find)."""
    root = {name: name for name in names}

    def find(name: str) -> str:
        while root[name] != name:
            root[name] = root[root[name]]
            name = root[name]
        return name

    for first, second in links:
        if first in root and second in root:
            low, high = sorted((find(first), find(second)))
            root[high] = low
    members: dict[str, list[str]] = defaultdict(list)
    for name in names:
        members[find(name)].append(name)
    return list(members.values())


def _dealing_order(clusters: Sequence[_Cluster], total: Counter[str], salt: str) -> list[_Cluster]:
    def key(cluster: _Cluster) -> tuple[bool, int, str, str]:
        rarest = cluster.rarest(total)
        hashed = min(hashlib.sha256(f"{salt}\0{name}".encode()).hexdigest() for name in cluster.names)
        return cluster.follows is None, total[rarest], rarest, hashed

    return sorted(clusters, key=key)


def _neediest(
    have: Mapping[Split, Counter[str]], cluster: _Cluster, total: Counter[str], shares_: Mapping[Split, float]
) -> Split:
    rarest = cluster.rarest(total)
    half = cluster.classes[rarest] / 2
    sides = [side for side in _ORDER if side in cluster.allowed]
    return min(sides, key=lambda side: ((have[side][rarest] + half) / shares_[side], _ORDER.index(side)))
