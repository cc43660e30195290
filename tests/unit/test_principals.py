"""Who must stay an admin, so that somebody always is one; and who may enter which workspace."""

import pytest

from models.domain.errors import Conflict
from models.domain.principals import Kind, Principal, Role, leaves_admins, require_admins_left

ADMIN, PLATFORM = Role.ADMIN.value, Role.PLATFORM_ADMIN.value


@pytest.mark.parametrize(
    ("before", "after", "leaves"),
    [
        ([], [], True),
        ([ADMIN], [], False),
        ([ADMIN, ADMIN], [ADMIN], True),
        ([PLATFORM, ADMIN], [ADMIN], False),
        ([PLATFORM, ADMIN], [PLATFORM], True),
    ],
)
def test_somebody_may_do_everything(before: list[str], after: list[str], leaves: bool) -> None:
    assert leaves_admins(before, after) is leaves


@pytest.mark.parametrize(
    ("keys", "role", "may"),
    [
        ([("anna", ADMIN)], None, False),
        ([("anna", ADMIN), ("anna", ADMIN)], Role.OPERATOR, False),
        ([("anna", ADMIN)], Role.PLATFORM_ADMIN, True),
        ([("anna", ADMIN), ("bert", ADMIN)], None, True),
        ([("anna", PLATFORM), ("bert", ADMIN)], Role.ADMIN, False),
        ([("anna", PLATFORM), ("bert", PLATFORM)], Role.ADMIN, True),
        ([("bert", ADMIN)], None, True),
    ],
)
def test_the_last_admin_stays_one(keys: list[tuple[str, str]], role: Role | None, may: bool) -> None:
    if may:
        require_admins_left(keys, "anna", role)
        return
    with pytest.raises(Conflict, match="give another one that role and such a key first") as told:
        require_admins_left(keys, "anna", role)
    assert told.value.code == "last_admin"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ([("anna", PLATFORM), ("bert", ADMIN)], "'anna' is the last platform admin with a key"),
        ([("anna", PLATFORM)], "'anna' is the last admin of the workspace with a key"),
        ([("anna", ADMIN)], "'anna' is the last admin of the workspace with a key"),
    ],
)
def test_which_admin_is_the_last_is_said(keys: list[tuple[str, str]], said: str) -> None:
    with pytest.raises(Conflict, match=said):
        require_admins_left(keys, "anna", None)


@pytest.mark.parametrize(("role", "opens"), [(Role.ADMIN, False), (None, False), (Role.PLATFORM_ADMIN, True)])
def test_only_a_platform_admin_enters_other_workspaces(role: Role | None, opens: bool) -> None:
    caller = Principal("home", "anna", Kind.HUMAN if role else Kind.SERVICE, role, key_id="k")
    assert caller.opens("home")
    assert (caller.opens("elsewhere"), caller.opens_all) == (opens, opens)
