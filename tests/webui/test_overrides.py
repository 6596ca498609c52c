"""Other values for a while, and then exactly what was there before."""

import pytest

from lib_latent_upscale.webui.host.overrides import overridden


class Thing:
    shared = "of the class"

    def __init__(self) -> None:
        self.own = "own"
        self._kept = "kept"

    @property
    def through(self) -> str:
        return self._kept

    @through.setter
    def through(self, value: str) -> None:
        self._kept = value

    @property
    def fixed(self) -> str:
        return "fixed"


VALUES = {"own": 1, "shared": 2, "through": 3, "new": 4}
BEFORE = {"own": "own", "_kept": "kept"}


def test_everything_is_as_before_after_the_end_and_after_a_failure():
    thing = Thing()
    with overridden(thing, VALUES):
        assert [thing.own, thing.shared, thing.through, thing.new] == [1, 2, 3, 4]
    assert vars(thing) == BEFORE
    with pytest.raises(KeyError), overridden(thing, VALUES):
        raise KeyError
    assert vars(thing) == BEFORE
    assert thing.shared == "of the class"


def test_one_that_cannot_be_set_leaves_nothing_behind():
    thing = Thing()
    with pytest.raises(AttributeError):
        overridden(thing, {**VALUES, "fixed": 5})
    assert vars(thing) == BEFORE


def test_it_may_be_closed_later_and_twice_and_around_another():
    thing = Thing()
    outer = overridden(thing, {"own": 1, "new": 1})
    inner = overridden(thing, {"own": 2, "new": 2})
    inner.close()
    assert (thing.own, thing.new) == (1, 1)
    del thing.new  # another script may have taken it off
    outer.close()
    outer.close()
    assert vars(thing) == BEFORE
