"""Before any defect is labelled: a bundle from good pictures alone, of a backbone that has learnt elsewhere.

Invariants: only good pictures are read, thresholds come from the validation side and the golden side is left to gate 2; the
bundle's recipe doubts and never rejects; weights that have learnt nothing are refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from inspection.contracts import ANY_DEFECT, Band, Recipe
from inspection.data.product import Product
from inspection.data.products import load_product
from inspection.data.snapshot_record import UNUSUAL, Split
from inspection.data.snapshots import build_snapshot
from inspection.errors import UsageError
from inspection.models import catalogue
from inspection.models.deploy import MOST_SURE, ColdStartGraph
from inspection.release.guard import STATED_SHARE, unfamiliar_limit
from inspection.release.measure import Answers
from inspection.release.rollout import check_no_classifier
from inspection.settings import Settings
from inspection.stages.build_search import Search, Student, check_runtimes
from inspection.stages.candidate import Candidate, folder_of
from inspection.stages.evidence import cold_start_run, log_cold_start
from inspection.stages.familiar import learn_good
from inspection.stages.material import Material, Say
from inspection.stages.shrink import next_version, pack_bundle, shipping
from inspection.store.session import Store


@dataclass(frozen=True)
class Network:
    """The network of a cold start, as its manifest describes it."""

    backbone: str
    pretrained: str
    classes: list[str]
    good_class: str
    height: int
    width: int


def network_of(product: Product) -> Network:
    """The student's network where its plan has learnt weights, else the teacher's. UsageError where neither has."""
    classes = [product.good_class, UNUSUAL]
    for plan in (product.student, product.train):
        if plan.pretrained != "none":
            backbone = catalogue.resolved(plan.backbone)
            height, width = plan.height or product.train.height, plan.width or product.train.width
            return Network(backbone, plan.pretrained, classes, product.good_class, height, width)
    raise UsageError(
        f"a cold start of {product.name!r} needs weights that have learnt from other pictures, and both plans say "
        '"pretrained": "none": set student.pretrained or train.pretrained to "hub" or to a file of weights'
    )


def make(settings: Settings, store: Store, product_name: str, say: Say) -> Candidate:
    """Learn, export, quantize, choose, pack; returns the candidate with its bundle, ready for gate 2.

    Raises UsageError without learnt weights, with too few good parts, without any on one of the three sides, or when a
    classifier is on the lines.
    """
    with store.begin(read_only=True) as session:
        check_no_classifier(session, product_name)
        network = network_of(load_product(session, product_name))
    snapshot = build_snapshot(store, product_name, good_only=True)
    material = Material.load(store, product_name, snapshot.digest)
    check_runtimes(material.product.student)
    material.check_sides()
    number = next_version(store, product_name)
    with cold_start_run(settings, material, number) as run:
        candidate = Candidate(
            folder=folder_of(settings, run.id),
            product=product_name,
            snapshot=snapshot.digest,
            run_id=run.id,
            started_at=datetime.now(UTC),
            definition=material.product,
            cold_start=True,
        ).save()
        say(f"learning from {len(material.of(Split.TRAIN))} good pictures with {network.backbone}")
        student = Student(candidate.student_folder(0), network, _graph(material, network))
        search = Search(material, [student], _rule(material, number), say)
        chosen = search.run()
        candidate = pack_bundle(material, shipping(material, candidate, chosen, say), chosen, number)
        return log_cold_start(settings, run, material, candidate, search.bar)


def _graph(material: Material, network: Network) -> ColdStartGraph:
    net = catalogue.build(
        network.backbone, 2, pretrained=network.pretrained, height=network.height, width=network.width, good_index=0
    ).eval()
    return ColdStartGraph(net, learn_good(material, net)).eval()


@dataclass(frozen=True)
class _Rule:
    """From a file's answers about the validation parts, all good, to its recipe."""

    product: Product
    parts: Sequence[str]
    number: int

    def __call__(self, answers: Answers) -> Recipe:
        limit = unfamiliar_limit(answers.scores[:, 1], self.parts, STATED_SHARE)
        return Recipe(
            product=self.product.name,
            version=self.number,
            good_class=self.product.good_class,
            region=self.product.region,
            tiling=self.product.tiling,
            thresholds={ANY_DEFECT: Band(inconclusive=min(limit, MOST_SURE), ng=1.0)},
            limits=self.product.limits,
            costs=self.product.costs,
        )


def _rule(material: Material, number: int) -> _Rule:
    return _Rule(material.product, [e.part for e in material.of(Split.VALIDATION)], number)
