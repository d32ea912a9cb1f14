"""Promises of the project that is kept up to date by code, against the fake."""

import pytest

from inspection.data.product import Product
from inspection.errors import LabelError
from inspection.labelling.interface import labelling_config
from inspection.labelling.project import ensure_project
from tests.labelling.conftest import make_product
from tests.labelling.fake import FakeStudio


def test_repeats_change_nothing(fake_studio: FakeStudio, product: Product) -> None:
    """One project and four tabs, however often."""
    ids = {ensure_project(fake_studio, product) for _ in range(3)}
    assert len(ids) == 1
    assert [t.data["title"] for t in fake_studio.tabs(ids.pop())] == ["To label", "Labelled", "Audit", "Skipped"]
    assert fake_studio.calls.count("change_project") == 0


def test_another_product_with_a_title_cut_alike_gets_its_own(fake_studio: FakeStudio) -> None:
    """Titles are cut at 50 characters; the marker is what counts."""
    first, second = make_product("p" * 60 + "a"), make_product("p" * 60 + "b")
    assert ensure_project(fake_studio, first) != ensure_project(fake_studio, second)


def test_a_renamed_project_is_found_by_its_marker(fake_studio: FakeStudio, product: Product) -> None:
    """People may call it what they like."""
    project = ensure_project(fake_studio, product)
    fake_studio.change_project(project, title="Valves, hall 3")
    assert ensure_project(fake_studio, product) == project


def test_a_lost_marker_is_told_instead_of_making_a_second_project(fake_studio: FakeStudio, product: Product) -> None:
    """Somebody emptied the description: say so."""
    project = ensure_project(fake_studio, product)
    fake_studio.change_project(project, description="")
    with pytest.raises(LabelError, match="put this line back"):
        ensure_project(fake_studio, product)


def test_a_grown_product_gets_its_new_class(fake_studio: FakeStudio, product: Product) -> None:
    """The interface follows the product."""
    project = ensure_project(fake_studio, product)
    grown = make_product("valve", "stain")
    assert ensure_project(fake_studio, grown) == project
    assert fake_studio.project(project).config == labelling_config(grown)


def test_a_harmless_change_by_hand_stays(fake_studio: FakeStudio, product: Product) -> None:
    """An administrator may add a heading."""
    project = ensure_project(fake_studio, product)
    text = labelling_config(product).replace("<View>", '<View><Header value="Hall 3"/>')
    fake_studio.change_project(project, label_config=text)
    ensure_project(fake_studio, product)
    assert fake_studio.project(project).config == text


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('<Choice value="dent" hotkey="3" />', "", "the choice 'dent' is missing"),
        ('name="answer"', 'name="verdict"', "the control 'answer'"),
        ('<Label value="dent"', '<Label value="bump"', "the box label 'dent' is missing"),
        ('<Choice value="dent"', '<Choice value="bump" /><Choice value="dent"', "'bump' is no class"),
    ],
)
def test_a_change_by_hand_that_no_longer_fits_is_refused_until_restored(
    fake_studio: FakeStudio, product: Product, old: str, new: str, told: str
) -> None:
    """Never overwritten silently, never used silently."""
    project = ensure_project(fake_studio, product)
    config = labelling_config(product)
    assert old in config
    fake_studio.change_project(project, label_config=config.replace(old, new))
    with pytest.raises(LabelError, match="changed by hand") as caught:
        ensure_project(fake_studio, product)
    assert told in str(caught.value)
    assert fake_studio.project(project).config != config
    ensure_project(fake_studio, product, restore=True)
    assert fake_studio.project(project).config == config


def test_tabs_of_people_stay_and_our_filters_come_back(fake_studio: FakeStudio, product: Product) -> None:
    """A tab is ours by its title only."""
    project = ensure_project(fake_studio, product)
    fake_studio.save_tab(project, {"title": "Mine", "filters": {}})
    first = fake_studio.tabs(project)[0]
    fake_studio.save_tab(project, first.data | {"filters": {}, "columnsWidth": {"x": 1}}, first.id)
    ensure_project(fake_studio, product)
    tabs = {t.data["title"]: t.data for t in fake_studio.tabs(project)}
    assert len(tabs) == 5
    assert tabs["To label"]["filters"] == first.data["filters"]
    assert tabs["To label"]["columnsWidth"] == {"x": 1}
