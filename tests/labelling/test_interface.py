"""Promises of the labelling interface."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspection.errors import LabelError, UsageError
from inspection.labelling.interface import CANNOT_TELL, labelling_config, read_config
from tests.labelling.conftest import make_product

CLASS_NAMES = st.text(
    st.characters(whitelist_categories=["L", "N", "P", "S"], blacklist_characters="$"), min_size=1, max_size=20
).filter(lambda name: name not in {"good", "scratch", "dent", CANNOT_TELL})


def test_same_product_gives_the_same_text() -> None:
    """An unchanged product must never look like a changed interface."""
    assert labelling_config(make_product()) == labelling_config(make_product())


@given(st.lists(CLASS_NAMES, unique=True, max_size=15))
def test_every_class_can_be_chosen_and_every_defect_drawn(names: list[str]) -> None:
    """Whatever printable characters a class name has, it arrives as itself."""
    asked = read_config(labelling_config(make_product("valve", *names)))
    assert asked.choices == {"good", "scratch", "dent", CANNOT_TELL, *names}
    assert asked.boxes == {"scratch", "dent", *names}
    assert asked.controls == {"answer": "Choices", "defect": "RectangleLabels"}


def test_hotkeys_are_one_for_good_digits_for_defects_and_zero_for_cannot_tell() -> None:
    """Operators learn keys by heart: they follow the order of the classes."""
    text = labelling_config(make_product())
    for value, key in (("good", "1"), ("scratch", "2"), ("dent", "3"), (CANNOT_TELL, "0")):
        assert f'<Choice value="{value}" hotkey="{key}"' in text


def test_no_hotkey_and_no_colour_is_given_twice() -> None:
    """With many classes keys run out rather than clash."""
    text = labelling_config(make_product("valve", *(f"kind{n}" for n in range(20))))
    keys = [part.split('"')[0] for part in text.split('hotkey="')[1:]]
    colours = [part.split('"')[0] for part in text.split('background="')[1:]]
    assert len(keys) == len(set(keys))
    assert len(colours) == len(set(colours)) == 22


@pytest.mark.parametrize("name", ["", " edge", "$part", "line\nbreak", "x" * 101, CANNOT_TELL, "scratch"])
def test_a_class_name_that_cannot_be_a_choice_is_refused(name: str) -> None:
    """Better refused here than lost in the interface."""
    with pytest.raises(UsageError):
        labelling_config(make_product("valve", name))


@pytest.mark.parametrize("text", ["<View>", "", '<!DOCTYPE v [<!ENTITY a "b">]><View/>', "x" * 2_000_000])
def test_text_that_is_no_interface_is_refused(text: str) -> None:
    """What a person broke by hand is a LabelError, entity bombs included."""
    with pytest.raises(LabelError):
        read_config(text)
