"""The sheet that shows what augmentation does."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from inspection.data.product import AugmentPlan
from inspection.training.preview import chosen, in_words, sheet
from tests.training.pictures import CLASSES, parts, product


def test_a_sheet_shows_two_of_each_class_and_what_becomes_of_them() -> None:
    """The first column is as it is, a plan that does nothing repeats it, and one that turns does not."""
    snapshot, files = parts(12)
    some = chosen(snapshot.examples, CLASSES)
    assert [e.label for e in some] == ["good", "good", "pit", "pit", "scratch", "scratch"]
    nothing = AugmentPlan(
        flip_horizontal=False, flip_vertical=False, shift_scale=0, brightness_contrast=0, blur_noise=False
    )
    same = [len({a.images[0].get_array().tobytes() for a in row}) for row in _rows(product(augment=nothing), some, files)]
    turned = [len({a.images[0].get_array().tobytes() for a in row}) for row in _rows(product(), some, files)]
    assert same == [1] * 6
    assert min(turned) >= 4


def _rows(plan: object, some: list[object], files: dict[str, bytes]) -> np.ndarray:
    figure = sheet(plan, some, files.__getitem__)
    FigureCanvasAgg(figure).draw()
    return np.array(figure.axes).reshape(len(some), -1)


def test_the_words_say_what_is_on_and_what_is_off() -> None:
    """Somebody whose defect is a colour must see that hue stays."""
    said = in_words(AugmentPlan(rotate_degrees=10))
    assert "rotate up to 10 degrees" in said.splitlines()[0]
    assert "hue and saturation" in said.splitlines()[1]
