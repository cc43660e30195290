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


FILTERS = [
    ("filter.keys.smudge", "sh tools/run"),
    ("filter.keys.smudge", 'cd tools && ./run "%f"'),
    ("filter.keys.smudge", '"$(git rev-parse --show-toplevel)"/tools/run'),
    ("filter.keys.process", "tools/run"),
    ("filter.a=b 'c'.clean", "tools/run"),
    ("core.fsmonitor", "tools/run"),
]


@pytest.mark.parametrize(("name", "command"), FILTERS)
async def test_no_program_of_its_settings_is_run(checked_out: Bench, name: str, command: str) -> None:
    work, ran = checked_out.work, checked_out.work.path.parent / "ran"
    work.commit({"tools/run": "#!/bin/sh\ncat\n", ".gitattributes": "*.key filter=keys\n*.py filter=\"a=b 'c'\"\n"})
    (work.path / "tools/run").chmod(0o755)
    work.git("commit", "-qam", "It may be run")
    head = work.sha()
    work.write({"tools/run": f"#!/bin/sh\ntouch {ran}\ncat\n", "my.key": "k\n", "app.py": "x = 1\n"})
    work.git("add", "-A")
    work.git("commit", "-qm", "Ours")
    topic = work.sha()
    work.git("reset", "-q", "--hard", head)
    work.git("update-ref", "refs/heads/topic", topic)
    work.git("config", name, command)
    work.git("config", "filter.keys.required", "true")
    await checked_out.mirror.fetch()
    await merge_topic(checked_out, head, topic)
    assert not ran.exists()
    assert (work.path / "my.key").read_text() == "k\n", "the checkout follows, with what is in the commit"


ITS_OWN = {
    "core.hooksPath": ".husky",
    "filter.lfs.smudge": "git-lfs smudge -- %f",
    "core.excludesFile": "app.py",
    "include.path": "../../elsewhere.gitconfig",
}
"""A path without a root is one of the git folder, for whoever receives."""


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
