"""Tests of matching the classes of one data set with another's by name."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmae_keras.weights.classes import match_classes

NAMES = st.lists(
    st.text("abcdefgh ijklmnop_-'()é7", min_size=1, max_size=12).filter(
        lambda name: re.search("[a-zé7]", name)
    ),
    min_size=1,
    max_size=20,
    unique_by=lambda name: re.sub("[ _'()-]", "", name),
)


@pytest.mark.clause("WEIGHT-7")
@pytest.mark.parametrize(
    ("have", "want"),
    [
        ("tai chi", "Tai_Chi"),
        ("Tai-Chi", "taichi"),
        ("passing American football (in game)", "passing_american_football_in_game"),
        ("eating hot dog", '"Eating  Hot-Dog"'),
        ("dancing [ballet]", "'dancing ballet'"),
        ("STRASSE", "straße"),
        ("pumping 100 kg", "Pumping_100_kg"),
    ],
)
def test_names_are_compared_without_case_and_marks(have, want):
    assert match_classes(["yoga", have, "zumba"], [want]) == [1]


@pytest.mark.clause("WEIGHT-7")
@pytest.mark.parametrize("other", ["tai chis", "tae chi", "tai chi 2", "chi tai"])
def test_other_letters_and_digits_are_another_name(other):
    with pytest.raises(ValueError, match=f"Received: '{other}', that are not among them"):
        match_classes(["tai chi", "yoga"], [other])


@pytest.mark.clause("WEIGHT-7")
@given(NAMES, st.randoms(use_true_random=False))
def test_a_shuffled_and_reduced_list_maps_back(have, random):
    order = random.sample(range(len(have)), random.randint(1, len(have)))
    want = [random.choice([str.upper, str.title, str])(have[place]) for place in order]
    assert match_classes(have, want) == order


def test_a_class_may_be_wanted_twice_and_none_at_all():
    assert match_classes(["a", "b"], ["b", "a", "B"]) == [1, 0, 1]
    assert match_classes(["a", "b"], []) == []


def test_all_that_are_missing_are_listed():
    with pytest.raises(ValueError, match="Pass the numbers of the classes yourself") as caught:
        match_classes(["yoga", "zumba"], ["archery", "Yoga", "tai chi"])
    assert "Received: 'archery', 'tai chi', that are not among them." in str(caught.value)


def test_all_that_occur_twice_are_listed():
    with pytest.raises(ValueError, match="Classes cannot be matched by name") as caught:
        match_classes(["yoga", "tai chi", "Yoga", "zumba", "Tai_Chi"], ["zumba"])
    assert "Received: 'Yoga', 'Tai_Chi', that occur twice." in str(caught.value)
