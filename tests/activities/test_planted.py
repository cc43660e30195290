"""An origin's git runs nothing that a patch has written: neither hooks nor programs among the files of a checkout."""

from collections.abc import Callable
from pathlib import Path

import pytest

from activities.workbench.mirrors import Mirror
from activities.workbench.planted import read_law
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


PROGRAMS = [
    ("filter.keys.smudge", "sh tools/run"),
    ("filter.keys.smudge", '"/usr/bin/python3" -m nbstripout'),
    ("filter.a=b 'c'.clean", "make -s clean"),
    ("filter.keys.process", "git-lfs filter-process; tools/run"),
    ("filter.keys.smudge", 'git-lfs smudge -- "%f"'),
    ("filter.keys.clean", "'git-crypt' clean '%f'"),
    ("core.fsmonitor", "tools/run"),
    ("core.alternateRefsCommand", "tools/run"),
]


@pytest.mark.parametrize(("name", "command"), PROGRAMS)
async def test_where_its_settings_name_a_program_nothing_is_pushed(checked_out: Bench, name: str, command: str) -> None:
    """Whatever it is called, it may take a file of the checkout."""
    checked_out.work.git("config", name, command)
    assert (await planted(checked_out.mirror)).startswith("the program of its setting")


@pytest.mark.parametrize(("name", "command"), PROGRAMS)
async def test_a_bare_repository_has_no_files_and_runs_none(bare: Bench, name: str, command: str) -> None:
    bare.origin.git("config", name, command)
    assert await planted(bare.mirror) == ""


async def test_unless_they_are_files_of_another_s_checkout(bare: Bench, tmp_path: Path) -> None:
    program = tmp_path / "other/tools/run"
    for folder in (tmp_path / "other/.git", program.parent):
        folder.mkdir(parents=True)
    for command in (
        f"sh '{program}'",
        f"cd '{program.parent}'&&./run",
        f"A={program}; sh $A",
        f"sh -c 'exec {program}'",
    ):
        bare.origin.git("config", "core.alternateRefsCommand", command)
        assert (await planted(bare.mirror)).startswith("the program of its setting")


@pytest.mark.parametrize("command", ["sh ~nosuch/x", f"echo {'/x' * 3_000}", "it's /x"])
async def test_words_that_lead_nowhere(bare: Bench, command: str) -> None:
    bare.origin.git("config", "core.alternateRefsCommand", command)
    assert await planted(bare.mirror) == ""


async def test_a_known_program_that_is_a_file_of_the_checkout(checked_out: Bench) -> None:
    checked_out.work.git("config", "filter.lfs.smudge", f"{checked_out.work.path}/git-lfs smudge -- %f")
    assert (await planted(checked_out.mirror)).startswith("the program of its setting")


async def test_nor_where_only_a_linked_worktree_does(checked_out: Bench, tmp_path: Path) -> None:
    work = checked_out.work
    work.git("config", "extensions.worktreeConfig", "true")
    work.git("worktree", "add", "-q", str(tmp_path / "linked"), "-b", "other")
    assert await planted(checked_out.mirror) == ""
    Repo(tmp_path / "linked").git("config", "--worktree", "filter.keys.smudge", "sh tools/run")
    assert (await planted(checked_out.mirror)).startswith("the program of its setting 'filter.keys.smudge'")


async def test_hooks_beside_the_files_are_found_by_nothing_that_git_runs_there(checked_out: Bench) -> None:
    """It updates the index from within the checkout, where a path without a root leads among the files."""
    work, ran = checked_out.work, checked_out.work.path.parent / "ran"
    work.write({".husky/post-index-change": f"#!/bin/sh\ntouch {ran}\n"})
    (work.path / ".husky/post-index-change").chmod(0o755)
    work.commit({}, "What a patch brought")
    work.git("config", "core.hooksPath", ".husky")
    await checked_out.mirror.fetch()
    base, topic = await checked_out.topic()
    ran.unlink(missing_ok=True)
    await merge_topic(checked_out, base, topic)
    assert not ran.exists()


async def test_files_in_another_folder_than_git_s_own(checked_out: Bench, tmp_path: Path) -> None:
    checked_out.work.git("config", "core.worktree", str(tmp_path / "site"))
    assert (await planted(checked_out.mirror)).startswith("its files in ")


ITS_OWN = {
    "core.hooksPath": ".husky",
    "filter.lfs.process": "git-lfs filter-process",
    "filter.lfs.smudge": "git-lfs smudge -- %f",
    "filter.secrets.clean": '"git-crypt" clean',
    "filter.other.clean": '"/usr/local/bin/git-crypt" clean',
    "core.worktree": "..",
    "core.fsmonitor": "true",
    "core.excludesFile": "app.py",
    "include.path": "../../elsewhere.gitconfig",
}


async def planted(mirror: Mirror) -> str:
    return (await read_law(mirror)).planted


@pytest.mark.parametrize(("name", "value"), ITS_OWN.items())
async def test_what_no_patch_writes_holds(checked_out: Bench, name: str, value: str) -> None:
    checked_out.work.write({".husky/pre-commit": "#!/bin/sh\n", "smudge": "a file of this name is no program\n"})
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
