"""Rendered parts for the training tests: a flat surface, a dark pit, a bright scratch."""

import cv2
import numpy as np

from inspection.contracts import Limits, sha256_hex
from inspection.data.product import AugmentPlan, Product, StudentPlan, TrainPlan
from inspection.data.snapshot_record import Example, Snapshot, Split

CLASSES = ["good", "pit", "scratch"]


def picture(label: str, rng: np.random.Generator, side: int = 40) -> bytes:
    """A PNG of one part."""
    image = np.full((side, side, 3), 128, np.uint8)
    x, y = (int(v) for v in rng.integers(10, side - 10, 2))
    if label == "pit":
        cv2.circle(image, (x, y), 5, (20, 20, 20), -1)
    if label == "scratch":
        cv2.line(image, (x - 8, y), (x + 8, y + 3), (250, 250, 250), 2)
    noisy = image + rng.normal(0, 4, image.shape)
    return cv2.imencode(".png", np.clip(noisy, 0, 255).astype(np.uint8))[1].tobytes()


def parts(count: int, classes: list[str] = CLASSES, seed: int = 0) -> tuple[Snapshot, dict[str, bytes]]:
    """A snapshot of ``count`` parts, classes in turn, every fourth part on the validation side."""
    rng = np.random.default_rng(seed)
    files: dict[str, bytes] = {}
    examples = []
    for n in range(count):
        label = classes[n % len(classes)]
        data = picture(label, rng)
        digest = sha256_hex(data)
        files[digest] = data
        side = Split.VALIDATION if n % 4 == 3 else Split.TRAIN
        examples.append(Example(picture=digest, label=label, part=f"p{n}", group=f"p{n}", split=side))
    return Snapshot(product="plate", good_class="good", classes=classes, examples=examples), files


def product(classes: list[str] = CLASSES, **train: object) -> Product:
    """A product with a tiny, quick plan."""
    plan = {"backbone": "test_resnet", "pretrained": "none", "height": 32, "width": 32, "epochs": 2,
            "batch_size": 8, "learning_rate": 4e-3, "augment": AugmentPlan(blur_noise=False)}  # fmt: skip
    return Product(
        name="plate",
        good_class="good",
        classes=classes,
        limits=Limits(escape_rate=0.05, overkill_rate=0.05),
        train=TrainPlan.model_validate(plan | train),
        student=StudentPlan(backbone="test_efficientnet", epochs=2),
    )
