"""Git does what it was asked and nothing else, and ends when it must."""

import asyncio
import os
import re
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.workbench.git import Git, GitError, redact
from activities.workbench.locks import exclusive
from models.domain.errors import StageFailed
from tests.fixtures.git_repos import make_repo


@pytest.fixture
def git(tmp_path: Path) -> Git:
    return Git(tmp_path / "home")


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A file that git hashes for as long as we keep it open."""
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


async def read_by_git(fifo: Path) -> int:
    """Wait until git has opened the fifo; git reads on until the descriptor is closed."""
    return await asyncio.to_thread(os.open, fifo, os.O_WRONLY)


async def test_failure_says_why_without_host_paths(git: Git, tmp_path: Path) -> None:
    with pytest.raises(GitError) as failed:
        await git.run("rev-parse", "HEAD", git_dir=tmp_path / "nothing here")
    assert failed.value.code == "git_failed"
    assert failed.value.retryable
    assert str(tmp_path) not in failed.value.message + failed.value.stderr
    assert "not a git repository" in failed.value.message


async def test_nothing_of_the_machine_or_the_repository_is_run(git: Git, tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", {".gitattributes": "* filter=evil diff=evil\n", "f": "x\n"})
    trace = tmp_path / "trace"
    evil = f"sh -c 'touch {trace}; cat'"
    for name in ("filter.evil.smudge", "core.fsmonitor", "diff.evil.textconv", "diff.external", "core.sshCommand"):
        repo.git("config", name, evil)
    hook = repo.path / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {trace}\n")
    hook.chmod(0o755)
    (git.home / ".gitconfig").write_text(f"[core]\n\tpager = {evil}\n\tfsmonitor = {evil}\n")
    fetched = tmp_path / "copy"
    await git.run("init", "-q", "--template=", str(fetched))
    await git.run("fetch", "-q", str(repo.path), "main:main", git_dir=fetched / ".git")
    work_tree = {"GIT_WORK_TREE": str(fetched)}
    await git.run("checkout", "-q", "main", git_dir=fetched / ".git", env=work_tree)
    await git.run("status", git_dir=fetched / ".git", env=work_tree)
    await git.run("log", "-p", git_dir=fetched / ".git")
    assert not trace.exists()


@pytest.mark.parametrize("url", ["ext::sh -c touch% trace", "http://127.0.0.1:1/x", "git://127.0.0.1/x"])
async def test_other_transports_are_off(git: Git, url: str) -> None:
    with pytest.raises(GitError, match="not allowed"):
        await git.run("ls-remote", url)


async def test_too_much_output_is_cut_off(git: Git, tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", {"f": "x" * 100_000})
    with pytest.raises(StageFailed) as failed:
        await git.run("show", "HEAD:f", git_dir=repo.path / ".git", max_output=1000)
    assert failed.value.code == "change_too_large"


async def test_more_memory_than_a_host_can_share_fails_for_good(git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activities.workbench.git._MAX_MEMORY", 20_000_000)
    with pytest.raises(StageFailed) as failed:
        await git.run("hash-object", "--stdin", stdin=b"x" * 50_000_000)
    assert failed.value.code == "change_too_large"


async def test_a_path_the_file_system_does_not_take_fails_for_good(git: Git, tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo", {"f": "x"})
    blob = repo.git("hash-object", "-w", "f").decode().strip()
    repo.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{'y' * 300}")
    repo.git("commit", "-q", "-m", "long")
    (place := tmp_path / "new").mkdir()
    with pytest.raises(StageFailed) as failed:
        await git.run("checkout", "--force", "HEAD", git_dir=repo.path / ".git", env={"GIT_WORK_TREE": str(place)})
    assert failed.value.code == "path_too_long"


async def test_much_input_and_output_at_once(git: Git) -> None:
    text = b"line\n" * 1_000_000
    hashed = await git.run("hash-object", "--stdin", stdin=text)
    assert len(hashed.text) == 40


async def test_slow_command_is_stopped(git: Git, fifo: Path) -> None:
    with pytest.raises(GitError) as failed:
        await git.run("hash-object", "--no-filters", str(fifo), timeout=0.2)
    assert failed.value.code == "git_timeout"
    assert not running_on(fifo)


async def test_cancelled_command_is_stopped(git: Git, fifo: Path) -> None:
    task = asyncio.ensure_future(git.run("hash-object", "--no-filters", str(fifo)))
    writer = await read_by_git(fifo)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not running_on(fifo)
    os.close(writer)


async def test_held_lock_outlives_the_holder(git: Git, fifo: Path, tmp_path: Path) -> None:
    """A folder stays locked while a git that was started for it still works, even when its starter is gone."""
    folder = tmp_path / "locked"
    async with exclusive(folder) as lock:
        left_behind = asyncio.ensure_future(git.run("hash-object", "--no-filters", str(fifo), hold=lock))
        writer = await read_by_git(fifo)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), exclusive(folder):
            pass
    os.close(writer)
    await left_behind
    async with asyncio.timeout(5), exclusive(folder):
        pass


async def test_lock_on_a_folder_that_was_removed_meanwhile(tmp_path: Path) -> None:
    folder = tmp_path / "locked"

    async def wait_for_it() -> None:
        async with exclusive(folder):
            assert folder.is_dir()

    async with exclusive(folder):
        waiting = asyncio.ensure_future(wait_for_it())
        await asyncio.sleep(0)
        folder.rmdir()
    await asyncio.wait_for(waiting, 5)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("fatal: '/srv/my repos/x' is gone", "fatal: '<path>' is gone"),
        ("To /srv/x/y.git", "To <path>"),
        ("unable to access 'https://ada:pw@example.com/a/b'", "unable to access 'https://example.com/a/b'"),
        ("From file:///srv/x", "From <path>"),
        ("error: patch failed: src/app.py:3", "error: patch failed: src/app.py:3"),
    ],
)
def test_redaction(said: str, shown: str) -> None:
    assert redact(said) == shown


def test_redacting_hostile_words_takes_no_time() -> None:
    words = "a" * 1_000_000
    assert redact(words) == words
    assert redact(f"{words}://ada:pw@example.com") == f"{words}://example.com"


@given(st.text("a:/@+ '.", max_size=30))
def test_no_credentials_are_left_in_a_url(said: str) -> None:
    assert not re.search(r"[a-z+]+://[^/@\s]+@", redact(said))


def running_on(file: Path) -> bool:
    return any(str(file) in (process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
