"""Where an answer goes: into files that are replaced whole, into pipes as it comes, and never lost without a word."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from typer.testing import CliRunner

from cli.main import app
from models.domain.checkpoints import Checkpoint, sign
from tests.fixtures.answers import Api, Json

PROGRAM = str(Path(sys.executable).with_name("mission-control"))
END = b'{"kind": "end"}\n'
EXPORTED = b'{"kind": "log"}\n' + END


class Export(Api):
    """Answers with an export."""

    def __init__(self, content: bytes) -> None:
        super().__init__({})
        self._content = content

    def answer(self, path: str, body: Json) -> tuple[int, bytes]:
        """Take a request."""
        return 200, self._content


SHORT, LONG = Export(EXPORTED), Export(b'{"kind": "' + b"x" * 2_000_000 + b'"}\n' + END)


def exported(to: Path) -> None:
    ended = SHORT.run("audit", "export", "--force", "-o", str(to))
    assert (ended.exit_code, ended.stdout, ended.stderr) == (0, "", f"{to}: 0 rows, {len(EXPORTED)} bytes\n")


class TestExport:
    """`audit export -o` puts a file in the place of a file, and of nothing else."""

    @pytest.mark.parametrize("before", [None, b"older"])
    def test_a_link_stays_one_and_its_target_is_written(self, before: bytes | None, tmp_path: Path) -> None:
        (tmp_path / "kept").mkdir()
        target, link = tmp_path / "kept/log.jsonl", tmp_path / "link"
        link.symlink_to(Path("kept/log.jsonl"))
        if before:
            target.write_bytes(before)
        exported(link)
        assert (link.is_symlink(), target.is_symlink(), target.read_bytes()) == (True, False, EXPORTED)
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["kept", "link", "log.jsonl"]

    @pytest.mark.parametrize("linked", [False, True])
    def test_a_file_that_is_there_is_kept(self, linked: bool, tmp_path: Path) -> None:
        kept, link = tmp_path / "log.jsonl", tmp_path / "link"
        kept.write_bytes(b"evidence")
        link.symlink_to(kept)
        ended = SHORT.run("audit", "export", "-o", str(link if linked else kept))
        assert (ended.exit_code, kept.read_bytes()) == (2, b"evidence")
        assert ended.stderr.startswith("file_exists: ")
        assert "--force" in ended.stderr

    def test_its_rows_and_bytes_are_told(self, tmp_path: Path) -> None:
        content = b'{"kind": "log"}\n' + 40_000 * b'{"kind" : "row", "content" : {"kind" : "row"}}\n' + END
        ended = Export(content).run("audit", "export", "-o", str(tmp_path / "a"))
        assert ended.stderr == f"{tmp_path / 'a'}: 40,000 rows, {len(content):,} bytes\n"

    @pytest.mark.parametrize("is_told", [True, False])
    def test_how_far_it_is_is_told_on_a_terminal_beside_a_file(self, is_told: bool, tmp_path: Path) -> None:
        """And not where the rows themselves are shown there."""
        outer, inner = os.openpty()
        with SHORT.serving() as url:
            words = [PROGRAM, "audit", "export", *(["-o", str(tmp_path / "a")] if is_told else [])]
            to = subprocess.DEVNULL if is_told else inner
            where = ["--url", url, "--api-key", "k"]
            env = os.environ | {"TERM": "xterm"}
            subprocess.run([*words, *where], stdin=subprocess.DEVNULL, stdout=to, stderr=inner, env=env, check=True)
        os.close(inner)
        printed = os.read(outer, 100_000)
        os.close(outer)
        assert (b"\x1b[" in printed, b"rows, " in printed) == (is_told, is_told)

    @pytest.mark.parametrize("linked", [False, True])
    def test_a_pipe_stays_one_and_is_written_to(self, linked: bool, tmp_path: Path) -> None:
        pipe, link, heard = tmp_path / "pipe", tmp_path / "link", []
        os.mkfifo(pipe)
        link.symlink_to(pipe)
        reader = threading.Thread(target=lambda: heard.append(pipe.read_bytes()), daemon=True)
        reader.start()
        exported(link if linked else pipe)
        assert pipe.is_fifo(), "it is still a pipe, which somebody reads"
        reader.join(10)
        assert (heard, link.is_symlink(), len(list(tmp_path.iterdir()))) == ([EXPORTED], True, 2)

    @pytest.mark.parametrize(
        "content", [b"", EXPORTED[:20], EXPORTED[:-16], EXPORTED[:-1], b'{"kind": "row", "x": "end"}\n']
    )
    def test_one_that_broke_off_takes_no_place(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(EXPORTED)
        ended = Export(content).run("audit", "export", "--force", "-o", str(tmp_path / "a"))
        assert (ended.exit_code, ended.stderr.startswith("cut_off: the export broke off")) == (1, True), ended.output
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": EXPORTED}

    def test_links_in_a_ring_are_told(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")
        ended = SHORT.run("audit", "export", "-o", str(tmp_path / "a"))
        assert (ended.exit_code, "file_unwritable: " in ended.stderr) == (2, True), ended.output


class TestStandardOutput:
    """Of the real program: what it cannot write is told, and in one line."""

    @contextmanager
    def serving(self, api: Api) -> Iterator[list[str]]:
        with api.serving() as url:
            yield ["--url", url, "--api-key", "k"]

    @pytest.mark.parametrize("words", [("audit", "export"), ("decision", "list"), ("mission", "--help"), ("--help",)])
    def test_that_takes_nothing(self, words: tuple[str, ...], tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        api = SHORT if "export" in words else Api({"items": []})
        with self.serving(api) as where, (tmp_path / "file").open("rb") as only_read:
            ended = subprocess.run(
                [PROGRAM, *words, *(() if "--help" in words else where)],
                stdout=only_read,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        said = "output_failed: standard output cannot be written: Bad file descriptor; what was asked for may be done\n"
        assert (ended.returncode, ended.stderr) == (1, said)

    def test_that_is_full(self, tmp_path: Path) -> None:
        script = f'ulimit -f 8; exec "{PROGRAM}" "$@" > "{tmp_path / "log"}"'
        with self.serving(LONG) as where:
            words = ["sh", "-c", script, "sh", "audit", "export", "--json", *where]
            ended = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1), ended.stderr
        assert '"code": "output_failed"' in ended.stderr
        assert "File too large" in ended.stderr

    def test_that_is_closed(self) -> None:
        api = Api({"items": []})
        with self.serving(api) as where:
            words = ["sh", "-c", f'exec "{PROGRAM}" "$@" >&-', "sh", "decision", "list", *where]
            ended = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (ended.returncode, api.asked) == (1, [])
        assert ended.stderr.startswith("output_failed: standard output is closed")
        assert "Traceback" not in ended.stderr

    def test_whose_reader_has_enough(self) -> None:
        with self.serving(LONG) as where:
            words = [PROGRAM, "audit", "export", *where]
            with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
                assert program.stdout
                assert program.stderr
                assert program.stdout.read(1) == b"{"
                program.stdout.close()
                assert program.stderr.read() == b""
        assert program.returncode == 1


class TestVerify:
    """The exit code tells a log that was changed from a question that was put wrongly."""

    KEY = Ed25519PrivateKey.generate()

    @pytest.fixture
    def key(self, tmp_path: Path) -> Path:
        public = self.KEY.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        (tmp_path / "key.pub").write_bytes(public)
        return tmp_path / "key.pub"

    def verify(self, tmp_path: Path, key: Path, checkpoint: Path) -> tuple[int, str]:
        (tmp_path / "log.jsonl").touch()
        words = ["audit", "verify", str(tmp_path / "log.jsonl"), "--key", str(key), "--checkpoint", str(checkpoint)]
        ended = CliRunner().invoke(app, words)
        return ended.exit_code, ended.stderr

    @pytest.mark.parametrize("text", ["", "no key", "ssh-rsa AAAA"])
    def test_a_file_that_is_no_key(self, text: str, tmp_path: Path) -> None:
        wrong = tmp_path / "wrong"
        wrong.write_text(text)
        code, said = self.verify(tmp_path, wrong, wrong)
        assert (code, said.startswith(f"key_unreadable: {wrong}: ")) == (2, True), said

    @pytest.mark.parametrize("text", ["", "no checkpoint"])
    def test_a_file_that_is_no_checkpoint(self, text: str, tmp_path: Path, key: Path) -> None:
        wrong = tmp_path / "wrong"
        wrong.write_text(text)
        code, said = self.verify(tmp_path, key, wrong)
        assert (code, said.startswith(f"checkpoint_malformed: {wrong}: ")) == (2, True), said

    @pytest.mark.parametrize(("signer", "said"), [(KEY, "cut_off: "), (Ed25519PrivateKey.generate(), "checkpoint_uns")])
    def test_what_is_not_as_it_was_sealed(
        self, signer: Ed25519PrivateKey, said: str, tmp_path: Path, key: Path
    ) -> None:
        note = sign(Checkpoint("log", 1, bytes(32)), signer.public_key().public_bytes_raw(), signer.sign)
        kept = tmp_path / "checkpoint"
        kept.write_text(note, encoding="utf-8")
        code, told = self.verify(tmp_path, key, kept)
        assert (code, told.startswith(said)) == (1, True), told

    @pytest.mark.parametrize("text", ["ssh-ed25519 AAAA", "{}", "[]", '{"kind": "log"}', 99 * "["])
    def test_a_file_that_is_no_export(self, text: str, tmp_path: Path, key: Path) -> None:
        (tmp_path / "log.jsonl").write_text(text)
        ended = CliRunner().invoke(app, ["audit", "verify", str(tmp_path / "log.jsonl"), "--key", str(key)])
        assert (ended.exit_code, ended.stderr.startswith("malformed: line 1, ")) == (1, True), ended.stderr
        assert "give a file that `audit export` wrote" in ended.stderr
        assert "Error" not in ended.stderr


@pytest.mark.parametrize(
    ("run", "daily", "shown"),
    [
        (None, None, "any sum a run, any sum a day"),
        ("2.5", None, "2.5 USD a run, any sum a day"),
        (None, "5", "any sum a run, 5 USD a day"),
    ],
)
def test_an_agent_without_a_cap_may_spend_any_sum(run: str | None, daily: str | None, shown: str) -> None:
    facts = ("agent_id", "name", "registration", "status", "level", "endpoint", "created_at", "requested_by", "silence")
    agent = dict.fromkeys(facts, "none") | {"created_at": "2026-01-10T10:00:00Z", "capabilities": [], "tools": []}
    held = {"run_cap_usd": run, "daily_cap_usd": daily, "decided_at": None, "last_heartbeat_at": None}
    printed = Api(agent | held).run("agent", "show", "probe").stdout
    assert f"may spend     {shown}" in printed
    assert "None" not in printed


def test_an_output_that_lacks_characters_shows_their_numbers() -> None:
    workspace = {"workspace_id": "w", "name": "M\u00fcnchen \u2603", "created_at": None, "mission_statement": None}
    with Api({"items": [workspace], "next_cursor": None}).serving() as url:
        ended = subprocess.run(
            [PROGRAM, "workspace", "list", "--url", url, "--api-key", "k"],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
            check=False,
        )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert b"M\\xfcnchen \\u2603" in ended.stdout
