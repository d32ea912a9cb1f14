"""The real sets as snapshots, with the split of their ``labels.csv``, and budgets of them; no store, no servers."""

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inspection.contracts import sha256_hex
from inspection.data.importers import Item, read_directory
from inspection.data.snapshot_record import Example, Snapshot, Split

DATA = Path(os.environ.get("ESCAPEMENT_DATA", Path(__file__).parents[3] / "shared" / "data"))
GOOD = {"elpv": "functional", "xsdd": "red_iron", "deeppcb_crops": "ok", "deeppcb_boards": "ok"}
"""The good class of each set; X-SDD has none, so its most frequent one stands in."""
MOBILENET = "mobilenetv2_100?pad_type=same&mean=0.5&std=0.5"
MOBILENET_WEIGHTS = DATA / "weights" / "mobilenetv2_100_timm_same_tf2ptq_dequant_fp16.pth"
_VALIDATION_SHARE = 0.2


@dataclass(frozen=True)
class RealSet:
    """A set in memory: ``items`` by picture digest."""

    name: str
    items: dict[str, Item]

    @classmethod
    def load(cls, name: str) -> "RealSet":
        """Read one of `GOOD`. UsageError when it is not there."""
        items = read_directory(DATA / name, GOOD[name])
        return cls(name, {sha256_hex(item.path.read_bytes()): item for item in items})

    def picture(self, digest: str) -> bytes:
        """A picture's file bytes."""
        return self.items[digest].path.read_bytes()

    def snapshot(self, per_class: int | None = None, seed: int = 0) -> Snapshot:
        """``per_class`` training pictures of each class (None: all), a fifth of whose groups validate; all test pictures
        are golden."""
        rng = np.random.default_rng(seed)
        side = {digest: Split.GOLDEN for digest, item in self.items.items() if item.split is Split.GOLDEN}
        by_class: dict[str, list[str]] = defaultdict(list)
        for digest in sorted(self.items.keys() - side.keys()):
            by_class[self.items[digest].label].append(digest)
        for _, digests in sorted(by_class.items()):
            chosen = rng.permutation(digests)[:per_class]
            groups = sorted({self.items[str(d)].group for d in chosen})
            validating = set(rng.permutation(groups)[: max(1, round(len(groups) * _VALIDATION_SHARE))])
            for digest in map(str, chosen):
                side[digest] = Split.VALIDATION if self.items[digest].group in validating else Split.TRAIN
        examples = [self._example(digest, split) for digest, split in sorted(side.items())]
        classes = [GOOD[self.name], *sorted(by_class.keys() - {GOOD[self.name]})]
        return Snapshot(product=self.name, good_class=GOOD[self.name], classes=classes, examples=examples)

    def _example(self, digest: str, split: Split) -> Example:
        item = self.items[digest]
        return Example(
            picture=digest, label=item.label, part=item.part, group=item.group, split=split, boxes=list(item.boxes)
        )
