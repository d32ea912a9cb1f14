"""The labelling interface of a product: Label Studio's XML, made from the product and nothing else.

Invariants: the same product always gives the same text; the control names below are what push and pull speak of and
never change; the good class comes first, "cannot tell" last; every choice among the first nine has a digit as hotkey.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET  # makes text only; what others wrote is read by `read_config`, with expat's limits

from inspection.data.product import Product
from inspection.errors import LabelError, UsageError

PICTURE = "picture"
ANSWER = "answer"
DEFECT = "defect"
CANNOT_TELL = "cannot_tell"
ABOUT_FIELD = "about"
IMAGE_FIELD = "image"

_GOLDEN = 0.618033988749895  # golden ratio - 1: successive hues stay far apart however many classes there are
_BOX_KEYS = "qwertyuiop"
_LONGEST_CLASS = 100  # what the label column of the store holds
_LONGEST_CONFIG = 1_000_000  # characters; ours has a few thousand


@dataclass(frozen=True)
class Interface:
    """What a labelling interface asks: control name -> its kind, and the values of the two we read."""

    controls: dict[str, str]
    choices: frozenset[str]
    boxes: frozenset[str]


def defects_of(product: Product) -> list[str]:
    """The defect classes, in the product's order."""
    return [name for name in product.classes if name != product.good_class]


def labelling_config(product: Product) -> str:
    """The XML of a product's interface: picture, boxes, one required choice.

    Raises UsageError on a class name that cannot be a choice (empty, doubled, reserved, too long, "$" in front).
    """
    _check_classes(product.classes, product.good_class)
    view = ET.Element("View")
    ET.SubElement(view, "Header", value=f"${ABOUT_FIELD}", size="6")
    _add_answer(view, product)
    _add_boxes(view, product)
    picture = {"name": PICTURE, "value": f"${IMAGE_FIELD}", "crossOrigin": "anonymous", "maxWidth": "100%"}
    tools = {"zoom": "true", "zoomControl": "true", "negativeZoom": "false", "brightnessControl": "true"}
    ET.SubElement(view, "Image", picture | tools | {"contrastControl": "true", "rotateControl": "false"})
    ET.indent(view, "  ")
    return ET.tostring(view, encoding="unicode")


def read_config(config: str) -> Interface:
    """What an interface asks, from its XML. Raises LabelError when it is not XML, or defines entities."""
    if len(config) > _LONGEST_CONFIG or "<!" in config.replace("<!--", ""):
        raise LabelError("the labelling interface is not one we read: it is huge, or declares a document type")
    try:
        root = ET.fromstring(config)  # noqa: S314 - document types, the way to entity bombs, are refused above
    except ET.ParseError as error:
        raise LabelError(f"the labelling interface is not XML ({error}): restore it in the project's settings") from error
    controls = {e.get("name", ""): e.tag for e in root.iter() if e.get("toName")}
    return Interface(controls, _values(root, ANSWER, "Choice"), _values(root, DEFECT, "Label"))


def _values(root: ET.Element, control: str, child: str) -> frozenset[str]:
    return frozenset(
        c.get("value", "") for parent in root.iter() if parent.get("name") == control for c in parent.iter(child)
    )


def _add_answer(view: ET.Element, product: Product) -> None:
    answer = ET.SubElement(
        view,
        "Choices",
        name=ANSWER,
        toName=PICTURE,
        choice="single-radio",
        required="true",
        requiredMessage="Choose what this part is, or cannot_tell",
        showInline="true",
    )
    ordered = [product.good_class, *defects_of(product), CANNOT_TELL]
    for value, key in zip(ordered, _choice_keys(len(ordered)), strict=True):
        ET.SubElement(answer, "Choice", {"value": value} | ({"hotkey": key} if key else {}))


def _choice_keys(count: int) -> list[str]:
    """Digits 1 to 9 from the first choice on; "cannot tell" is always 0, wherever it comes."""
    digits = [str(n) if n <= 9 else "" for n in range(1, count)]
    return [*digits, "0"]


def _add_boxes(view: ET.Element, product: Product) -> None:
    # A pale fill: what is inside a box must stay to be seen as it is.
    look = {"strokeWidth": "2", "opacity": "0.1", "showInline": "true"}
    boxes = ET.SubElement(view, "RectangleLabels", {"name": DEFECT, "toName": PICTURE} | look)
    for index, name in enumerate(defects_of(product)):
        # Without a hotkey of its own Label Studio would give a box the digits that belong to the choices.
        key = {"hotkey": _BOX_KEYS[index]} if index < len(_BOX_KEYS) else {}
        ET.SubElement(boxes, "Label", {"value": name, "background": _colour(index)} | key)


def _colour(index: int) -> str:
    """A strong colour as ``#rrggbb``; neighbours in the list differ most."""
    rgb = colorsys.hls_to_rgb((index * _GOLDEN) % 1.0, 0.45 if index % 2 == 0 else 0.6, 0.85)
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in rgb)


def _check_classes(classes: Sequence[str], good_class: str) -> None:
    if good_class not in classes:
        raise UsageError(f"the good class {good_class!r} is not among the classes {', '.join(classes)}")
    for name in classes:
        if name == CANNOT_TELL:
            raise UsageError(f"a class cannot be called {CANNOT_TELL!r}: that is the answer 'cannot tell'")
        if name != name.strip() or not name.isprintable() or name.startswith("$") or not 0 < len(name) <= _LONGEST_CLASS:
            raise UsageError(
                f"the class {name!r} cannot be shown as a choice: give it 1 to {_LONGEST_CLASS} printable characters, "
                "no blank at the ends, no $ in front"
            )
        if list(classes).count(name) > 1:
            raise UsageError(f"the class {name!r} is listed twice: list it once")
