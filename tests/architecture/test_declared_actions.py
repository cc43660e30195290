"""Every activity says in a policy's words what it does to the world (POL-18)."""

import importlib
import inspect
import pkgutil

import activities
from models.domain.actions import OF_ACTIVITIES
from tests.fixtures.policies import FIRST


def defined() -> set[str]:
    """The names of all activities of the product: what a worker offers is marked by `activity.defn`."""
    names = set()
    for module in pkgutil.walk_packages(activities.__path__, "activities."):
        for _, owner in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            marks = (getattr(method, "__temporal_activity_definition", None) for method in vars(owner).values())
            names |= {str(mark.name) for mark in marks if mark is not None}
    return names


def test_the_walk_finds_an_activity() -> None:
    assert {"merge", "settle_round"} <= defined()


def test_every_activity_declares_its_action() -> None:
    assert defined() - set(OF_ACTIVITIES) == set()


def test_no_declaration_is_left_over() -> None:
    assert set(OF_ACTIVITIES) - defined() == set()


def test_the_first_policy_knows_every_declared_action() -> None:
    assert [action for action in set(OF_ACTIVITIES.values()) if FIRST.classify(action) is None] == []
