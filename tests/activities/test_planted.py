"""An origin's git runs nothing that a patch has written: neither hooks nor programs among the files of a checkout."""

from collections.abc import Callable
from pathlib import Path

import pytest

from activities.workbench.planted import planted
from activities.workbench.pushing import PushRefused
from tests.fixtures.git_repos import Repo, make_repo
from tests.fixtures.merging import merge_topic
from tests.fixtures.workbenches import Bench

HOOKS = "ops/hooks"
"""Where a patch plants one that the next push, or the very same, would run."""


def by_hooks_path(work: Repo) -> None:
    work.git("config", "core.hooksPath", str(work.path / HOOKS))


def by_home(work: Repo) -> None:
    work.git("config", "core.hooksPath", "~/../checkout/hooks")


def by_relative_path(work: Repo) -> None:
    work.git("config", "core.hooksPath", f"../{HOOKS}")


def by_linked_folder(work: Repo) -> None:
    hooks = work.path / ".git/hooks"
    hooks.rename(work.path / ".git/hooks.old")
    hooks.symlink_to(f"../{HOOKS}")


def by_linked_hook(work: Repo) -> None:
    (work.path / ".git/hooks/post-receive").symlink_to("../../ops/deploy.sh")


def by_include(work: Repo) -> None:
    work.git("config", "include.path", "../.gitconfig")


def by_included_file_that_is_there(work: Repo) -> None:
    work.commit({".gitconfig": "[user]\n\tname = Ada\n"})
    by_include(work)


def by_conditional_include(work: Repo) -> None:
    work.git("config", "includeIf.onbranch:release.path", "../ops/release.gitconfig")


def by_linked_settings(work: Repo) -> None:
    (work.path / "config").write_bytes((work.path / ".git/config").read_bytes())
    (work.path / ".git/config").unlink()
    (work.path / ".git/config").symlink_to("../config")


def by_filter(work: Repo) -> None:
    work.git("config", "filter.keys.smudge", "ops/smudge %f")


def by_script_of_filter(work: Repo) -> None:
    work.commit({"ops/smudge.py": "print()\n"})
    work.git("config", "filter.keys.process", "python3 'ops/smudge.py' %f")


def by_monitor(work: Repo) -> None:
    work.git("config", "core.fsmonitor", str(work.path / "ops/monitor"))


def by_another_checkout(work: Repo) -> None:
    make_repo(work.path.parent / "tools", {"hooks/post-receive": "#!/bin/sh\n"})
    work.git("config", "core.hooksPath", str(work.path.parent / "tools/hooks"))


PLANTED = {
    by_hooks_path: "its folder of hooks",
    by_relative_path: "its folder of hooks",
    by_linked_folder: "its folder of hooks",
    by_another_checkout: "its folder of hooks",
    by_linked_hook: "its hook 'post-receive'",
    by_include: "its settings in '../.gitconfig'",
    by_included_file_that_is_there: "its settings in '../.gitconfig'",
    by_conditional_include: "its settings in '../ops/release.gitconfig'",
    by_linked_settings: "its settings in 'config'",
    by_filter: "the program of its setting 'filter.keys.smudge'",
    by_script_of_filter: "the program of its setting 'filter.keys.process'",
    by_monitor: "the program of its setting 'core.fsmonitor'",
}


@pytest.mark.parametrize(("prepare", "what"), PLANTED.items())
async def test_what_a_patch_may_have_written_is_not_run(
    checked_out: Bench, prepare: Callable[[Repo], None], what: str
) -> None:
    prepare(checked_out.work)
    head = checked_out.origin.sha("main")
    base, topic = await checked_out.topic()
    with pytest.raises(PushRefused, match=r"register a bare repository or a URL") as refused:
        await merge_topic(checked_out, base, topic)
    assert (refused.value.code, what in refused.value.message) == ("origin_runs_its_files", True), refused.value.message
    assert checked_out.origin.sha("main") == head


async def test_a_hook_that_a_patch_brings_is_not_run(checked_out: Bench) -> None:
    ran = checked_out.work.path.parent / "ran"
    by_hooks_path(checked_out.work)
    base, topic = await checked_out.topic(files={f"{HOOKS}/post-update": f"#!/bin/sh\ntouch {ran}\n"})
    with pytest.raises(PushRefused):
        await merge_topic(checked_out, base, topic)
    assert not ran.exists()


ITS_OWN = {
    "core.hooksPath": ".husky",
    "filter.lfs.smudge": "git-lfs smudge -- %f",
    "filter.tidy.clean": "sed s/a/b/",
    "core.fsmonitor": "true",
    "core.excludesFile": "app.py",
}
"""A path without a root is one of the git folder, for whoever receives; what is no program is not run."""


@pytest.mark.parametrize(("name", "value"), ITS_OWN.items())
async def test_what_no_patch_writes_holds(checked_out: Bench, name: str, value: str) -> None:
    checked_out.work.write({".husky/pre-commit": "#!/bin/sh\n"})
    checked_out.work.git("config", name, value)
    assert await planted(checked_out.mirror) == ""


async def test_hooks_of_an_owner_elsewhere_hold(checked_out: Bench, tmp_path: Path) -> None:
    checked_out.work.git("config", "core.hooksPath", str(tmp_path / "hooks"))
    assert await planted(checked_out.mirror) == ""


async def test_a_bare_origin_may_take_none_from_a_checkout_either(bare: Bench, tmp_path: Path) -> None:
    assert await planted(bare.mirror) == ""
    make_repo(tmp_path / "elsewhere")
    bare.origin.git("config", "core.hooksPath", str(tmp_path / "elsewhere/hooks"))
    assert await planted(bare.mirror) == "its folder of hooks"
