"""The real scanners on real commits, and a SARIF writer in the real sandbox."""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from activities.workbench import scanners
from activities.workbench.git import Git
from activities.workbench.mirrors import Mirror
from activities.workbench.sandbox import Sandbox
from activities.workbench.scanners import Change, read_change, scan_change, scan_sarif
from activities.workbench.trials import Place
from models.domain import keys
from models.domain.errors import StageFailed
from models.domain.repositories import RepositoryUrl
from models.domain.scanning import Scan, gather
from models.store.keys import new_secret
from tests.fixtures.git_repos import Repo
from tests.fixtures.waiting import eventually, until

KEY = "AKIA" + "IOSFODNN7EXAMPLE"
SHELL = 'import subprocess\nsubprocess.call("ls " + name, shell=True)'
SALT = b"salt"
SCAN = """
import asyncio, sys
from pathlib import Path
from activities.workbench.git import Git
from activities.workbench.scanners import read_change, scan_change
from activities.workbench.mirrors import Mirror
from models.domain.repositories import RepositoryUrl
git_dir, folder = Path(sys.argv[2]), Path(sys.argv[5])
mirror = Mirror(git_dir, RepositoryUrl(str(git_dir), git_dir), Git(Path(sys.argv[1])))
async def scan():
    change = await read_change(mirror, *sys.argv[3:5])
    await scan_change(mirror, change, b"salt", folder)
asyncio.run(scan())
"""


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    return Sandbox.detect("auto")


@pytest.fixture
def git(tmp_path: Path) -> Git:
    return Git(tmp_path / "home")


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    (tmp_path / "repo").mkdir()
    repo = Repo(tmp_path / "repo")
    repo.git("init", "-q", "-b", "main")
    return repo


def mirror_of(git: Git, repo: Repo) -> Mirror:
    """Take the repository itself for its mirror."""
    return Mirror(repo.path / ".git", RepositoryUrl(str(repo.path), repo.path), git)


async def change_of(
    git: Git, repo: Repo, base: dict[str, str | bytes | None], head: dict[str, str | bytes | None]
) -> Change:
    before, after = repo.commit(base), repo.commit(head)
    return await read_change(mirror_of(git, repo), before, after)


async def scan(git: Git, repo: Repo, base: dict[str, str | bytes | None], head: dict[str, str | bytes | None]) -> Scan:
    change = await change_of(git, repo, base, head)
    found = await scan_change(mirror_of(git, repo), change, SALT, repo.path.parent / "scan")
    assert not list((repo.path.parent / "scan").iterdir())
    return found


async def scanner_of(worker: psutil.Process) -> psutil.Process | None:
    """The process that a worker scans with, once there is one."""
    for child in worker.children():
        with suppress(psutil.Error):
            if child.cmdline()[1:4] == ["-I", "-m", "activities.workbench.scan_worker"]:
                return child
    return None


def shown(found: Scan) -> list[tuple[str, str, str, int]]:
    return [(one.rule.split(" ")[0], one.level.value, one.path, one.line) for one in gather(found).findings]


class TestChange:
    async def test_added_lines_of_every_kind_of_change(self, git: Git, repo: Repo) -> None:
        old = "one\ntwo\nthree\nfour\n"
        change = await change_of(
            git,
            repo,
            {"a.py": old, "gone.py": old, "old name.py": old * 9, ".gitattributes": "*.py -diff\n"},
            {
                "a.py": "zero\none\ntwo\n+++ b/x\nfour",
                "gone.py": None,
                "old name.py": None,
                'new "name"\n.py': old * 9 + "five\n",
                "b.txt": "diff --git a/x b/x\n@@ -1 +1 @@\n",
            },
        )
        assert {file.path: dict(file.added) for file in change.files} == {
            "a.py": {1: "zero", 4: "+++ b/x", 5: "four"},
            "b.txt": {1: "diff --git a/x b/x", 2: "@@ -1 +1 @@"},
            'new "name"\n.py': {37: "five"},
        }
        assert change.renamed == {"old name.py": 'new "name"\n.py'}

    async def test_a_link_that_becomes_a_file(self, git: Git, repo: Repo) -> None:
        (repo.path / "a").symlink_to("b")
        repo.commit({"z": "1\n"})
        (repo.path / "a").unlink()
        change = await change_of(git, repo, {"y": "2\n"}, {"a": "text\n", "z": "3\n"})
        assert {file.path: (file.base != "", dict(file.added)) for file in change.files} == {
            "a": (False, {1: "text"}),
            "z": (True, {1: "3"}),
        }


class TestSecrets:
    async def test_an_aws_key_is_found_and_never_shown(self, git: Git, repo: Repo) -> None:
        found = await scan(git, repo, {"a.py": "x = 1\n"}, {"a.py": f'x = 1\nkey = "{KEY}"\n'})
        report = gather(found)
        assert report.reason == "1 new high finding(s): a.py:2 looks like a secret: AWS Access Key (AWS Access Key)"
        assert KEY not in report.model_dump_json()
        assert report.blocking[0].fingerprint.startswith("hmac-sha256:")

    @pytest.mark.parametrize("name", ["a.py", "notes.txt", "deploy.yaml", "package-lock.json", "logo.png", "x.lock"])
    async def test_in_any_file_and_whatever_its_comments_say(self, git: Git, repo: Repo, name: str) -> None:
        line = f"# {KEY}  pragma: allowlist secret  nosec\n"
        found = await scan(git, repo, {"z": ""}, {name: line, ".secrets.baseline": "{}"})
        assert [one for one in shown(found) if one[1] == "high"] == [("AWS", "high", name, 1)]

    @pytest.mark.parametrize("prefix", [keys.PREFIX, keys.SESSION_PREFIX, keys.REGISTRATION_PREFIX])
    async def test_our_own_keys_are_found_however_they_stand(self, git: Git, repo: Repo, prefix: str) -> None:
        secret = f"{prefix}aB3{new_secret('')[:40]}"  # one in 1,500 has no digit
        ways = ("see {}", "MC_API_KEY={}_old", "'X-API-Key: {}'", r'"Bearer\t{}"', "?token%3D{}", "_{}_")
        names = [f"{prefix}{'a_name_' * 9}", f"{prefix}{'MAX_NUMBER_' * 5}"]
        text = "\n".join([*(way.format(secret) for way in ways), *names])
        found = shown(await scan(git, repo, {"z": ""}, {"a.md": text}))
        ours = [(level, line) for rule, level, _, line in found if rule == "Mission"]
        assert ours == [("high", line) for line in range(1, 1 + len(ways))]

    async def test_in_another_encoding(self, git: Git, repo: Repo) -> None:
        found = await scan(git, repo, {"z": ""}, {"a.txt": f"key = {KEY}\r\n".encode("utf-16")})
        assert ("AWS", "high", "a.txt", 1) in shown(found)

    async def test_what_was_there_before_is_not_blamed(self, git: Git, repo: Repo) -> None:
        old = f'key = "{KEY}"\n'
        assert shown(await scan(git, repo, {"a.txt": old}, {"a.txt": old + "more\n"})) == []

    async def test_a_guess_is_medium_and_ids_are_none(self, git: Git, repo: Repo) -> None:
        text = 'password = "hunter2hunter2"\nuser_id = "d41d8cd98f00b204e9800998ecf8427e"\npassword = get_password(1)\n'
        assert shown(await scan(git, repo, {"z": ""}, {"a.txt": text})) == [("Secret", "medium", "a.txt", 1)]

    async def test_hashes_in_lock_files_are_no_doubts(self, git: Git, repo: Repo) -> None:
        lock = '{"integrity": "sha512-QWxhZGRpbjpvcGVuIHNlc2FtZQx7mK2nXwZ9vR4tLpQ8=="}\n'
        assert shown(await scan(git, repo, {"z": ""}, {"package-lock.json": lock})) == []
        assert [one[1] for one in shown(await scan(git, repo, {"y": ""}, {"other.json": lock}))] == ["medium"]

    async def test_fingerprints_are_keyed(self, git: Git, repo: Repo) -> None:
        change = await change_of(git, repo, {"z": ""}, {"a.txt": KEY})
        mirror = mirror_of(git, repo)
        here = repo.path.parent / "scan"
        first, again = [await scan_change(mirror, change, b"one", here) for _ in range(2)]
        other = await scan_change(mirror, change, b"two", here)
        assert first == again
        assert first.findings[0].fingerprint != other.findings[0].fingerprint


class TestBandit:
    async def test_what_the_patch_adds_is_blamed(self, git: Git, repo: Repo) -> None:
        found = await scan(
            git, repo, {"a.py": "x = 1\n"}, {"a.py": SHELL + "  # nosec\n", ".bandit": "[bandit]\nskips: B602\n"}
        )
        assert ("B602", "high", "a.py", 2) in shown(found)
        assert [scanner.name for scanner in found.scanners] == ["bandit", "detect-secrets"]

    async def test_what_was_there_before_is_not(self, git: Git, repo: Repo) -> None:
        old = SHELL + "\n"
        assert shown(await scan(git, repo, {"a.py": old}, {"a.py": "# new\n" + old})) == []
        assert shown(await scan(git, repo, {"b.py": old * 9}, {"b.py": None, "c.py": old * 9})) == []

    async def test_a_second_one_is(self, git: Git, repo: Repo) -> None:
        old = SHELL + "\n"
        found = await scan(git, repo, {"a.py": old}, {"a.py": old + "subprocess.call(name, shell=True)\n"})
        assert [one for one in shown(found) if one[1] == "high"] == [("B602", "high", "a.py", 3)]

    async def test_an_import_that_changes_the_meaning_of_old_lines(self, git: Git, repo: Repo) -> None:
        old = "load(data)\n"
        found = await scan(git, repo, {"a.py": old}, {"a.py": "from pickle import loads as load\n" + old})
        assert ("B301", "medium", "a.py", 2) in shown(found)

    async def test_scripts_are_python_too(self, git: Git, repo: Repo) -> None:
        found = await scan(git, repo, {"z": ""}, {"bin/run": "#!/usr/bin/env python3\n" + SHELL + "\n"})
        assert ("B602", "high", "bin/run", 3) in shown(found)

    async def test_passwords_are_not_quoted(self, git: Git, repo: Repo) -> None:
        found = await scan(git, repo, {"z": ""}, {"a.py": 'password = "hunter2hunter2"\n'})
        assert "B105" in [one[0] for one in shown(found)]
        assert "hunter2" not in gather(found).model_dump_json()

    @pytest.mark.parametrize("text", ['print "old"\n', "x = " + "(" * 5000 + "\n", "x = \0\n", "-" * 90_000 + "1\n"])
    async def test_what_cannot_be_read_is_a_doubt(self, git: Git, repo: Repo, text: str) -> None:
        assert ("unreadable", "medium", "a.py", 0) in shown(await scan(git, repo, {"z": ""}, {"a.py": text}))

    async def test_without_python_it_is_skipped_and_says_so(self, git: Git, repo: Repo) -> None:
        found = await scan(git, repo, {"z": ""}, {"a.txt": "text\n"})
        assert [(one.name, one.reason) for one in found.skipped] == [("bandit", "the patch changes no Python file")]
        assert [scanner.name for scanner in found.scanners] == ["detect-secrets"]


class TestTrouble:
    async def test_a_scan_that_takes_too_long_fails(
        self, git: Git, repo: Repo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(scanners, "SECONDS", 0.01)
        with pytest.raises(StageFailed, match=r"longer than 0\.01 s") as failed:
            await scan(git, repo, {"z": ""}, {"a.txt": "text\n"})
        assert failed.value.code == "scan_failed"

    async def test_a_crash_fails_and_quotes_nothing(
        self, git: Git, repo: Repo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(scanners, "TASK", "elsewhere.json")
        with pytest.raises(StageFailed, match=r"crashed with code 1 \(FileNotFoundError\)\.$"):
            await scan(git, repo, {"z": ""}, {"a.txt": "text\n"})


class TestKilled:
    async def test_the_scanner_dies_with_its_worker_and_no_secret_stays(self, git: Git, repo: Repo) -> None:
        """The scanner is made to wait, so that only its worker's death can end it."""
        before, after = repo.commit({"z": ""}), repo.commit({"a.txt": KEY})
        folder, temporary = repo.path.parent / "scan", repo.path.parent / "tmp"
        temporary.mkdir()
        what = (str(git.home), str(repo.path / ".git"), before, after, str(folder))
        worker = psutil.Popen([sys.executable, "-c", SCAN, *what], env={**os.environ, "TMPDIR": str(temporary)})
        try:
            scanner = await eventually(lambda: scanner_of(worker))
            scanner.suspend()
            assert scanner.pid == os.getsid(scanner.pid)
            task = next(folder.rglob("task.json")).read_text()
        finally:
            worker.kill()
            worker.wait()
        assert SALT.hex() not in task
        assert "salt" not in task
        await until(lambda: not scanner.is_running() or scanner.status() == psutil.STATUS_ZOMBIE)
        assert not list(temporary.iterdir())
        change = await read_change(mirror_of(git, repo), before, after)
        assert shown(await scan_change(mirror_of(git, repo), change, SALT, folder)) == [("AWS", "high", "a.txt", 1)]
        assert not list(folder.iterdir())


class TestSarif:
    @pytest.fixture
    def places(self, tmp_path: Path) -> tuple[Place, Place]:
        made = []
        for side in ("base", "head"):
            place = Place(tmp_path / side, tmp_path / f"{side}-out")
            for folder in (place.tree, place.out):
                folder.mkdir()
            made.append(place)
        return made[0], made[1]

    @staticmethod
    def log(*lines: int) -> str:
        places = [{"artifactLocation": {"uri": "a.txt"}, "region": {"startLine": line}} for line in lines]
        results = [{"ruleId": "R", "level": "error", "locations": [{"physicalLocation": place}]} for place in places]
        driver = {"name": "tool", "version": "1"}
        return json.dumps({"version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]})

    async def test_only_new_findings_count(
        self, git: Git, repo: Repo, sandbox: Sandbox, places: tuple[Place, Place]
    ) -> None:
        change = await change_of(git, repo, {"a.txt": "1\n"}, {"a.txt": "1\n2\n"})
        (places[0].tree / "log").write_text(self.log(1))
        (places[1].tree / "log").write_text(self.log(1, 2))
        found = await scan_sarif(sandbox, *places, "cp log /out/x.sarif; exit 1", 20, change)
        assert shown(found) == [("R", "high", "a.txt", 2)]
        assert found.scanners[0].name == "tool"

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("exit 2", "left no /out/*.sarif at the base; it ended with code 2"),
            ("echo '{}' > /out/a.sarif", "'a.sarif' cannot be read: it is not SARIF 2.1.0"),
            ("sleep 60", "was stopped at the base: timeout"),
            (
                "cp log /out/a.sarif; cp log /out/b.sarif",
                "'b.sarif' cannot be read: with it, there are more than 25000",
            ),
        ],
    )
    async def test_a_scanner_that_fails_is_never_silence(
        self, sandbox: Sandbox, places: tuple[Place, Place], line: str, said: str
    ) -> None:
        (places[0].tree / "log").write_text(self.log(*range(13_000)))
        with pytest.raises(StageFailed) as failed:
            await scan_sarif(sandbox, *places, line, 1, Change(()))
        assert said in failed.value.message
