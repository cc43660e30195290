"""The command line as its user meets it: real processes against the real product."""

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from anyio.from_thread import BlockingPortal

from cli.demo import world
from tests.fixtures.command_line import (
    PROGRAM,
    Cli,
    cli,
    environment,
    merged,
    mission_file,
    portal,
    register,
    repository,
    stack,
)
from worker.dev.stack import Stack

__all__ = ["cli", "environment", "merged", "mission_file", "portal", "repository", "stack"]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def own_repository(stack: Stack, cli: Cli) -> str:
    """One for this test alone: a patch that is merged applies no more."""
    return register(stack, cli)


class TestAMission:
    """From filing to its end."""

    def test_watch_tells_each_stage_with_verdict_time_and_reason(self, merged: tuple[str, str]) -> None:
        mission_id, printed = merged
        rows = [row.split() for row in printed.splitlines()]
        assert ["4", "run_tests", "failed"] in [row[:3] for row in rows]
        assert "candidate 1" in printed
        passed = [row[1] for row in rows if row[2:3] == ["passed"]]
        assert passed[-3:] == ["merge", "observe", "resolve"]
        assert rows[-1][:3] == ["mission", f"{mission_id}:", "merged"]

    def test_show_list_and_logs_agree(self, merged: tuple[str, str], cli: Cli) -> None:
        mission_id, _ = merged
        shown = cli("mission", "show", mission_id).stdout
        assert "merged" in shown
        assert "run_tests (round 0, candidate 1)" in shown
        assert mission_id in cli("mission", "list", "--status", "resolved").stdout
        assert mission_id not in cli("mission", "list", "--status", "open").stdout
        assert "test_rounds_half_a_cent_away_from_zero" in cli("mission", "logs", mission_id, "--stage", "4").stdout
        logs = [cli("mission", "logs", mission_id, "--candidate", number, "--round", "0") for number in ("0", "1", "2")]
        assert ["FAIL" in log.stdout for log in logs[:2]] == [True, False]
        assert "no_log" in logs[2].stderr
        silent = cli("mission", "logs", mission_id, "--stage", "merge")
        assert (silent.returncode, silent.stdout) == (1, "")
        assert "stage 9 merge has no log" in silent.stderr
        followed = [json.loads(row) for row in cli("mission", "logs", mission_id, "-f", "--json").stdout.splitlines()]
        assert {"run_tests", "stress_tests", "observe"} <= {piece["stage"] for piece in followed}

    def test_watching_what_has_ended_tells_it_all_again(self, merged: tuple[str, str], cli: Cli) -> None:
        again = cli("mission", "watch", merged[0], "--json")
        records = [json.loads(row) for row in again.stdout.splitlines()]
        assert again.returncode == 0
        assert records[-1]["outcome"] == "merged"
        assert all(record["signature"] for record in records[:-1])

    def test_what_has_ended_takes_no_command(self, merged: tuple[str, str], cli: Cli) -> None:
        done = cli("mission", "pause", merged[0])
        assert done.returncode == 1
        assert "request " in done.stderr


def file_mission(cli: Cli, repository: str, mission_file: str, *words: str) -> str:
    patch = str(world.FILES / "patches" / "2-thorough.diff")
    common = ("--repo", repository, "--file", mission_file, "--patch", patch, "--json")
    done = cli("mission", "create", *common, *words)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["mission_id"])


RISKY = """\
diff --git a/invoices/risky.py b/invoices/risky.py
new file mode 100644
--- /dev/null
+++ b/invoices/risky.py
@@ -0,0 +1,3 @@
+def read(words: str) -> object:
+    \"\"\"Work words out.\"\"\"
+    return eval(words)
"""


class Heard:
    """What a process has printed until now."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout
        self.text, self._stream = "", process.stdout
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with self._stream:
            for row in self._stream:
                self.text += row.decode()


def wait_for(look: Callable[[], Any], seconds: float = 60) -> Any:
    """What `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "nothing came in time"
        time.sleep(0.1)
    return found


class TestSteering:
    """Decisions and commands from another terminal."""

    def test_a_denied_decision_ends_the_mission_and_watch_tells_it(
        self, cli: Cli, environment: dict[str, str], own_repository: str, mission_file: str
    ) -> None:
        mission_id = file_mission(cli, own_repository, mission_file, "--approve-needed", "--execute")
        watch = subprocess.Popen(
            [*PROGRAM, "mission", "watch", mission_id], env=environment, stdout=subprocess.PIPE, text=True
        )
        [decision] = wait_for(lambda: json.loads(cli("decision", "list", "--mission", mission_id, "--json").stdout))
        shown = cli("decision", "show", decision["decision_id"]).stdout
        assert "+    return int((net * rate / 100).quantize(" in shown
        assert "run_tests" in shown
        assert "the mission requires governance approval" in shown
        answer = cli("decision", "deny", decision["decision_id"], "--reason", "not now")
        assert answer.stdout.startswith("denied")
        printed, _ = watch.communicate(timeout=60)
        assert watch.returncode == 11
        assert "denied" in printed.splitlines()[-1]
        assert cli("decision", "approve", decision["decision_id"], "--reason", "late").returncode == 1

    def test_pause_note_resume_and_cancel(
        self, cli: Cli, environment: dict[str, str], own_repository: str, mission_file: str
    ) -> None:
        mission_id = file_mission(cli, own_repository, mission_file, "--approve-needed", "--execute")
        wait_for(lambda: json.loads(cli("decision", "list", "--mission", mission_id, "--json").stdout))
        followers = [
            subprocess.Popen([*PROGRAM, *words, mission_id], env=environment, stdout=subprocess.PIPE, stderr=output)
            for words, output in ((("mission", "watch"), None), (("mission", "logs", "-f"), subprocess.STDOUT))
        ]
        heard = [Heard(follower) for follower in followers]
        wait_for(lambda: "waits for a human" in heard[0].text and "governance" in heard[1].text)
        assert cli("mission", "pause", mission_id, "--reason", "lunch").returncode == 0
        assert cli("mission", "pause", mission_id).stdout.startswith("already paused (stage governance)")
        wait_for(lambda: all("paused by admin (lunch)" in follower.text for follower in heard))
        assert "admin (lunch)" in cli("mission", "show", mission_id).stdout
        assert json.loads(cli("mission", "show", mission_id, "--json").stdout)["paused"]
        assert cli("mission", "note", mission_id, "remember the tax office").stdout.startswith("noted")
        shown = cli("mission", "show", mission_id).stdout
        assert "mission resume" in shown
        assert "admin: remember the tax office" in shown
        assert f"/api/v1/missions/{mission_id}/evidence" in shown
        assert cli("mission", "resume", mission_id).stdout.startswith("resumed")
        refused = cli("mission", "cancel", mission_id, text="n\n")
        assert refused.returncode == 1
        assert cli("mission", "cancel", mission_id, "--yes", "--reason", "changed my mind").returncode == 0
        assert cli("mission", "watch", mission_id).returncode == 14
        assert [follower.wait(60) for follower in followers] == [14, 0]
        assert "resumed by admin" in heard[0].text
        assert "canceled by admin (changed my mind)" in heard[0].text
        again = cli("mission", "retry", mission_id, "--no-execute", "--json")
        assert json.loads(again.stdout)["retry_of"] == mission_id

    def test_after_the_merge_a_cancel_says_what_becomes_of_it(
        self, cli: Cli, own_repository: str, mission_file: str
    ) -> None:
        mission_id = file_mission(cli, own_repository, mission_file, "--window", "5", "--execute")
        wait_for(lambda: json.loads(cli("mission", "show", mission_id, "--json").stdout)["status"] == "observing")
        refused = cli("mission", "cancel", mission_id, "--yes")
        assert refused.returncode == 1
        assert "say --keep to leave it there, or --roll-back to take it back" in refused.stderr
        assert cli("mission", "cancel", mission_id, "--yes", "--keep").returncode == 0
        assert cli("mission", "watch", mission_id).returncode == 14

    def test_watch_survives_the_end_of_the_api(
        self,
        cli: Cli,
        environment: dict[str, str],
        own_repository: str,
        mission_file: str,
        stack: Stack,
        portal: BlockingPortal,
    ) -> None:
        mission_id = file_mission(cli, own_repository, mission_file, "--approve-needed", "--execute")
        [decision] = wait_for(lambda: json.loads(cli("decision", "list", "--mission", mission_id, "--json").stdout))
        watch = subprocess.Popen(
            [*PROGRAM, "mission", "watch", mission_id], env=environment, stdout=subprocess.PIPE, text=True
        )
        assert watch.stdout
        for row in watch.stdout:
            if "waits for a human" in row:
                break
        portal.call(stack.kill, "api")
        wait_for(lambda: cli("decision", "deny", decision["decision_id"], "--reason", "no").returncode == 0)
        printed, _ = watch.communicate(timeout=60)
        assert watch.returncode == 11
        assert "denied" in printed.splitlines()[-1]

    def test_a_candidate_is_added_later_and_what_the_scan_found_is_asked_about(
        self, cli: Cli, own_repository: str, tmp_path: Path
    ) -> None:
        common = ("mission", "create", "--repo", own_repository)
        refused = cli(*common, "--execute")
        assert refused.returncode == 2
        assert "give --patch or --ref" in " ".join(refused.stderr.replace("│", " ").split())
        mission_id = json.loads(cli(*common, "--json").stdout)["mission_id"]
        nothing = cli("mission", "execute", mission_id)
        assert nothing.returncode == 1
        assert f"`mission-control mission candidate add {mission_id}`" in nothing.stderr
        patch = tmp_path / "eval.diff"
        patch.write_text(RISKY)
        add = ("mission", "candidate", "add", mission_id)
        assert cli(*add).returncode == 2
        assert cli(*add, "--patch", str(patch)).stdout.startswith(f"candidate 0 of {mission_id}: sha256:")
        assert cli("mission", "execute", mission_id).returncode == 0
        [decision] = wait_for(lambda: json.loads(cli("decision", "list", "--mission", mission_id, "--json").stdout))
        shown = cli("decision", "show", decision["decision_id"]).stdout
        assert "medium  invoices/risky.py:3  B307 blacklist (bandit)" in shown, shown
        assert cli("mission", "cancel", mission_id, "--yes").returncode == 0


class TestBadInput:
    """Each is refused with a message that helps, and the exit code that a script can tell."""

    @pytest.mark.parametrize(
        ("words", "code", "said"),
        [
            (("mission", "show", "mission_20000101_001"), 1, "mission_not_found"),
            (("mission", "list", "--limit", "0"), 2, "--limit"),
            (("mission", "list", "--status", "lost"), 2, "--status"),
            (("mission", "create", "--repo", "nowhere", "--symptom", "x"), 1, "nowhere"),
            (("mission", "create", "--repo", "x", "--patch", "/does/not/exist"), 2, "/does/not/exist"),
            (("mission", "create", "--repo", "x", "--file", "/etc/os-release"), 2, "mapping"),
            (("repository", "add", "/etc"), 1, "repository_outside_roots"),
            (("decision", "approve", "x"), 2, "--reason"),
        ],
    )
    def test_refused(self, cli: Cli, repository: str, words: tuple[str, ...], code: int, said: str) -> None:
        done = cli(*words)
        assert done.returncode == code, done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize(
        "words",
        [
            ("mission", "cancel", "x"),
            ("key", "revoke", "x"),
            ("agent", "deactivate", "x"),
            ("principal", "deactivate", "x"),
            ("member", "remove", "x"),
        ],
    )
    def test_an_end_is_asked_about_unless_one_says_yes(self, cli: Cli, words: tuple[str, ...]) -> None:
        asked = cli(*words, text="n\n")
        assert (asked.returncode, asked.stdout.strip()) == (1, "")
        assert "? [y/N]" in asked.stderr
        told = cli(*words, "--yes")
        assert told.returncode == 1
        assert "_not_found" in told.stderr

    def test_errors_are_json_for_scripts(self, cli: Cli) -> None:
        done = cli("mission", "show", "mission_20000101_001", "--json")
        assert json.loads(done.stderr)["error"]["requestId"]

    def test_a_wrong_key_and_no_key(self, cli: Cli, tmp_path: Path) -> None:
        assert cli("mission", "list", MC_API_KEY="mc_wrong").returncode == 1
        nothing = cli("mission", "list", MC_API_KEY_FILE=str(tmp_path / "none"))
        assert nothing.returncode == 3
        assert "MC_API_KEY" in nothing.stderr

    def test_nobody_there(self, cli: Cli) -> None:
        done = cli("mission", "list", "--url", "http://127.0.0.1:1")
        assert done.returncode == 3
        assert "mission-control up" in done.stderr

    def test_somebody_else_there(self, cli: Cli) -> None:
        with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as stranger:
            threading.Thread(target=stranger.serve_forever, daemon=True).start()
            done = cli("mission", "list", "--url", f"http://127.0.0.1:{stranger.server_port}")
            stranger.shutdown()
        assert done.returncode == 3
        assert "is not Mission Control" in done.stderr

    def test_a_setting_that_cannot_be_right_is_named(self, cli: Cli) -> None:
        done = cli("mission", "list", MC_COMMANDS_AT_ONCE="many")
        assert done.returncode == 2
        assert "MC_COMMANDS_AT_ONCE" in done.stderr

    def test_ctrl_c_ends_a_watch_without_a_traceback(
        self, environment: dict[str, str], cli: Cli, repository: str, mission_file: str
    ) -> None:
        mission_id = file_mission(cli, repository, mission_file)
        # Whoever runs the tests in the background has them, and all that they start, ignore SIGINT.
        words = ["env", "--default-signal=INT", *PROGRAM, "mission", "watch", mission_id, "--json"]
        watch = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
        wait_for(psutil.Process(watch.pid).net_connections)  # it prints nothing while the mission waits to be started
        watch.send_signal(signal.SIGINT)
        _, complaint = watch.communicate(timeout=10)
        assert watch.returncode == 130
        assert "Traceback" not in complaint


def test_doctor_finds_what_runs(cli: Cli, stack: Stack) -> None:
    found = json.loads(cli("doctor", "--json").stdout)
    register(stack, cli)
    assert {"worker", "api", "repositories"} <= {part["name"] for part in found if part["ok"]}
    assert stack.settings.api_url in cli("doctor").stdout


class TestLists:
    """Pages are the API's affair, not the user's."""

    def test_all_walks_every_page_and_limit_stops(self, cli: Cli, stack: Stack) -> None:
        added = {register(stack, cli) for _ in range(3)}
        names = [row["name"] for row in json.loads(cli("repository", "list", "--all", "--json").stdout)]
        assert added <= set(names)
        assert len(names) == len(set(names))
        assert len(json.loads(cli("repository", "list", "--limit", "2", "--json").stdout)) == 2
