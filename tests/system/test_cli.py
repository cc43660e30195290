"""The command line as its user meets it: real processes against the real product."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from cli.client import connect
from cli.demo import world
from models.settings import Settings
from worker.dev.stack import Stack

PROGRAM = [str(Path(sys.executable).with_name("mission-control"))]
PORTS = dict.fromkeys(("api_port", "postgres_port", "temporal_port", "temporal_ui_port", "metrics_port"), 0)

pytestmark = pytest.mark.timeout(300)
Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture(scope="module")
def stack(server_dir: Path, portal: BlockingPortal) -> Iterator[Stack]:
    data = Path(tempfile.mkdtemp(dir=server_dir))
    data.chmod(0o711)
    own = {"data_dir": data, "repository_roots": (data,)}
    with portal.wrap_async_context_manager(Stack(Settings().model_copy(update=own | PORTS), report=print)) as stack:
        yield stack


@pytest.fixture(scope="module")
def environment(stack: Stack) -> dict[str, str]:
    """What a user of this installation has: its data folder, and nothing that says where the API is."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MC_", "DATABASE", "TEMPORAL"))}
    return plain | {"MC_DATA_DIR": str(stack.settings.data_dir), "COLUMNS": "200"}


@pytest.fixture(scope="module")
def cli(environment: dict[str, str]) -> Cli:
    def run(*words: str, text: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            PROGRAM + list(words), input=text, capture_output=True, text=True, env=environment | variables, check=False
        )

    return run


@pytest.fixture(scope="module")
def repository(stack: Stack, cli: Cli) -> str:
    """The name of a registered repository, for missions that merge."""
    return register(stack, cli)


@pytest.fixture
def own_repository(stack: Stack, cli: Cli) -> str:
    """One for this test alone: a patch that is merged applies no more."""
    return register(stack, cli)


def register(stack: Stack, cli: Cli) -> str:
    place = world.make_repository(Path(tempfile.mkdtemp(dir=stack.settings.data_dir)) / "repositories")
    done = cli("repository", "add", str(place), "--json")
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["name"])


@pytest.fixture(scope="module")
def mission_file(stack: Stack) -> str:
    file = stack.settings.data_dir / "mission.yaml"
    file.write_text((world.FILES / "mission.yaml").read_text())
    return str(file)


@pytest.fixture(scope="module")
def merged(cli: Cli, repository: str, mission_file: str) -> tuple[str, str]:
    """A mission that was filed, approved from outside and followed to its end: its id, and what was printed."""
    patches = [
        word for name in ("1-hasty", "2-thorough") for word in ("--patch", str(world.FILES / f"patches/{name}.diff"))
    ]
    filed = cli("mission", "create", "--repo", repository, "--file", mission_file, *patches, "--json")
    mission_id = str(json.loads(filed.stdout)["mission_id"])
    done = cli("mission", "execute", mission_id, "--watch")
    log = cli("mission", "logs", mission_id).stdout
    assert done.returncode == 0, done.stdout + done.stderr + log
    return mission_id, done.stdout


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


class TestKeys:
    def test_made_listed_rotated_and_revoked(self, cli: Cli) -> None:
        made = json.loads(cli("key", "create", "olga", "--role", "observer", "--scope", "missions", "--json").stdout)
        assert cli("mission", "list", "--api-key", made["secret"]).returncode == 0
        assert cli("repository", "list", "--api-key", made["secret"]).returncode == 1
        shown = cli("key", "rotate", made["key_id"], "--grace", "0").stdout
        assert "It is not shown again." in shown
        for key in json.loads(cli("key", "list", "--json").stdout):
            assert "secret" not in key
            if key["principal"] == "olga":
                assert cli("key", "revoke", key["key_id"], "--yes").returncode == 0
        listed = cli("key", "list").stdout
        assert listed.count("revoked") == 2
        assert cli("key", "create", "nobody").returncode == 1, "a human needs a role"


class TestPeople:
    def test_members_come_change_and_go(self, cli: Cli) -> None:
        assert json.loads(cli("member", "set", "anna", "observer", "--json").stdout)["role"] == "observer"
        assert cli("member", "set", "anna", "operator").returncode == 0
        assert "operator" in cli("principal", "show", "anna").stdout
        assert "anna" in cli("member", "list").stdout
        refused = cli("member", "remove", "admin", "--yes")
        assert (refused.returncode, "last with such a key" in refused.stderr) == (1, True)
        assert cli("member", "remove", "anna", "--yes").returncode == 0
        assert "anna" not in cli("member", "list").stdout
        assert "anna" in cli("principal", "list", "--kind", "human").stdout
        assert cli("principal", "create", "alertmanager", "--kind", "service").returncode == 0
        assert cli("principal", "deactivate", "alertmanager", "--yes").returncode == 0

    def test_a_workspace_of_ones_own(self, cli: Cli) -> None:
        made = json.loads(cli("workspace", "create", "search", "--name", "Search team", "--json").stdout)
        assert "search" in cli("workspace", "list").stdout
        assert cli("member", "set", "olga", "observer", "--workspace", "search").returncode == 0
        assert "olga" in cli("member", "list", "--api-key", made["secret"]).stdout

    def test_an_agent_is_let_in_held_and_ended(self, cli: Cli) -> None:
        words = ("agent", "register", "probe", "--endpoint", "https://agents.example.org", "--capability", "coding")
        made = json.loads(cli(*words, "--json").stdout)
        assert made["agent_id"] in cli("agent", "list", "--pending").stdout
        assert made["agent_id"] in cli("decision", "list").stdout
        assert cli("agent", "approve", "probe", "--reason", "known").returncode == 0
        shown = json.loads(cli("agent", "show", "probe", "--json", "--api-key", made["registration_token"]).stdout)
        assert cli("mission", "list", "--api-key", shown["key"]).returncode == 0
        for verb in ("pause", "resume", "drain", "quarantine", "stop", "resume"):
            assert cli("agent", verb, "probe").returncode == 0, verb
        assert "specialist" in cli("agent", "level", "probe", "specialist").stdout
        assert "probe: 0.5" in cli("agent", "trust", "probe").stdout
        assert "It is not shown again." in cli("agent", "rotate-key", "probe").stdout
        assert cli("agent", "deactivate", "probe", "--yes").returncode == 0
        again = json.loads(cli(*words[:2], "other", *words[3:], "--json").stdout)
        assert cli("agent", "reject", again["agent_id"], "--reason", "unknown").returncode == 0


class TestPolicy:
    """The law as its admin meets it."""

    def test_shown_tried_kept_and_put_in_force(self, cli: Cli, merged: tuple[str, str], tmp_path: Path) -> None:
        shown = cli("policy", "show")
        first = shown.stdout
        assert "# version 1, by first-start" in shown.stderr
        source = json.loads(cli("policy", "show", "--json").stdout)["source"]
        assert first == source
        stricter = tmp_path / "stricter.yaml"
        stricter.write_text(source.replace("rules:\n", f"rules:\n{ALWAYS}", 1))
        tried = cli("policy", "try", str(stricter))
        assert "acts would have been judged otherwise" in tried.stdout, tried.stderr
        assert "allow → ask" in tried.stdout
        assert merged[0] in tried.stdout
        made = cli("policy", "create", str(stricter), "--note", "for a while")
        assert "policy activate 2" in made.stdout
        asked = cli("policy", "activate", "2", text="n\n")
        assert asked.returncode == 1
        assert "(1 more) than version 1. Judge everything by it from now on? [y/N]" in asked.stderr
        assert "version 2 is in force" in cli("policy", "activate", "2", "--yes").stdout
        assert "for a while" in cli("policy", "versions").stdout
        explained = cli("policy", "explain", "--action", "mission.merge", "--as", "service").stdout
        assert "every merge is looked at" in explained
        assert cli("policy", "activate", "1", "--yes").returncode == 0
        judged = cli("policy", "verdicts", "--mission", merged[0], "--action", "mission.merge").stdout
        assert ("mission.merge" in judged, merged[0] in judged) == (True, True)

    def test_explained(self, cli: Cli) -> None:
        where = ("--env", "prod", "--protected", "--fact", "ci_files=ci.yml", "--usd", "2", "--usd-left", "1.5")
        shown = cli("policy", "explain", "--action", "mission.merge", "--as", "human:operator", *where).stdout
        assert "the environment is production" in shown
        assert "the patch changes CI files: ci.yml" in shown
        assert "2 of role admin or higher, never the requester" in shown

    @pytest.mark.parametrize(
        ("words", "code", "said"),
        [
            (("try", "FILE"), 1, "line 2"),
            (("create", "FILE"), 1, "line 2"),
            (("try", "/does/not/exist"), 2, "/does/not/exist"),
            (("activate", "99", "--yes"), 1, "policy_version_not_found"),
            (("explain", "--action", "shell", "--as", "king"), 1, "'human', 'agent' or 'service'"),
            (("explain", "--action", "shell", "--as", "agent:boss"), 1, "'intern', 'specialist' or 'lead'"),
        ],
    )
    def test_refused(self, cli: Cli, tmp_path: Path, words: tuple[str, ...], code: int, said: str) -> None:
        broken = tmp_path / "broken.yaml"
        broken.write_text("rules:\n  - {rule: a, because: b}\n")
        done = cli("policy", *(str(broken) if word == "FILE" else word for word in words))
        assert done.returncode == code, done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr


ALWAYS = "  - {rule: always, because: every merge is looked at, when: {action: mission.merge}, ask: {people: 1}}\n"


class TestBudgets:
    def test_set_listed_and_summed_up(self, cli: Cli, merged: tuple[str, str]) -> None:
        made = cli("budget", "set", "run", "level", "lead", "--usd", "2.25")
        assert made.stdout.strip() == "run of level lead: USD 2.25, tokens none"
        assert "2.25" in cli("budget", "list").stdout
        made = cli("budget", "set", "run", "level", "lead", "--tokens", "900")
        assert made.stdout.strip() == "run of level lead: USD 2.25, tokens 900", "what is not said stays"
        assert "USD none, tokens 900" in cli("budget", "set", "run", "level", "lead", "--usd", "none").stdout
        nothing = cli("budget", "set", "run", "level", "lead")
        assert (nothing.returncode, "say how much" in nothing.stderr) == (2, True)
        assert cli("budget", "set", "run", "level", "lead", "--usd", "-1").returncode == 1
        assert cli("budget", "set", "run", "level", "lead", "--tokens", "some").returncode == 2
        assert json.loads(cli("budget", "spending", "--scope", "run", "--json").stdout) is not None
        costs = json.loads(cli("cost", "--by", "mission", "--json").stdout)
        paid = {row["key"]: Decimal(row["usd"]) for row in costs["items"]}
        assert paid[merged[0]] > 0, "what its host worked"
        assert Decimal(costs["total"]["usd"]) == sum(paid.values())
        assert "total" in cli("cost").stdout


class TestRuns:
    def test_listed_and_shown_with_their_tools(self, cli: Cli, stack: Stack, merged: tuple[str, str]) -> None:
        [run] = json.loads(cli("run", "list", "--mission", merged[0], "--json").stdout)
        assert run["run_id"] in cli("run", "list", "--status", "success").stdout
        assert f"{run['usd']} paid" in cli("run", "show", run["run_id"]).stdout
        with connect(stack.settings, None, None) as api:
            made = api.post("/runs", {})["run_id"]
            api.post(f"/runs/{made}/tool-calls", {"tool": "grep", "duration_ms": 1500})
        listed = cli("run", "tools", made).stdout
        assert ("grep" in listed, "1.5 s" in listed) == (True, True)
        assert "running" in cli("run", "show", made).stdout
        assert cli("run", "show", "nothing").returncode == 1


class TestAudit:
    def test_what_an_act_says_is_removed(self, cli: Cli, merged: tuple[str, str]) -> None:
        [act] = json.loads(cli("audit", "list", "--subject", merged[0], "--action", "mission.created", "--json").stdout)
        words = ("audit", "redact", str(act["id"]), "--reason", "named a customer")
        assert cli(*words, text="n\n").returncode == 1
        assert "proofs hold" in cli(*words, "--yes").stdout
        assert "audit.redacted" in cli("audit", "list").stdout


class TestMemory:
    def test_written_found_shown_and_withdrawn(self, cli: Cli, merged: tuple[str, str], tmp_path: Path) -> None:
        (tmp_path / "note.md").write_text("Half cents go up: see money.py.\n")
        words = ("--file", str(tmp_path / "note.md"), "--tag", "tax", "--mission", merged[0])
        note = json.loads(cli("memory", "add", "Rounding", *words, "--json").stdout)
        assert (note["state"], note["tags"], note["mission_id"]) == ("kept", ["tax"], merged[0])
        piped = cli("memory", "add", "Cache", "--file", "-", "--kind", "code_fragment", text="cache.clear()")
        assert "cache.clear()" in piped.stdout
        for options in (("cents", "up"), ("--tag", "tax"), ("--mission", merged[0]), ("--kind", "playbook_note")):
            listed = cli("memory", "list", *options).stdout
            assert ("Rounding" in listed, "Cache" in listed) == (True, False)
        assert "Half cents go up" in cli("memory", "show", note["memory_id"]).stdout
        assert "withdrawn" in cli("memory", "withdraw", note["memory_id"], "--yes").stdout
        assert "Rounding" not in cli("memory", "list").stdout
        assert "Rounding" in cli("memory", "list", "--state", "withdrawn").stdout
        assert cli("memory", "add", "Nothing", "--file", str(tmp_path / "gone.md")).returncode == 2

    def test_what_an_agent_proposes_is_read_before_it_counts(self, cli: Cli) -> None:
        agent, observer = (
            json.loads(cli("key", "create", *words, "--json").stdout)["secret"]
            for words in (("scribe", "--kind", "agent"), ("onlooker", "--role", "observer"))
        )
        words = ("memory", "add", "Proposed", "--file", "-", "--json")
        note = json.loads(cli(*words, text="Look before you leap.", MC_API_KEY=agent).stdout)
        assert (note["state"], "Proposed" in cli("memory", "list").stdout) == ("proposed", False)
        shown = ("decision", "show", note["decision_id"])
        assert "Look before you leap." in cli(*shown).stdout
        seen = cli(*shown, MC_API_KEY=observer)
        assert (seen.returncode, note["memory_id"] in seen.stdout, "leap" in seen.stdout) == (0, True, False)
        assert cli("decision", "approve", note["decision_id"], "--reason", "read it").returncode == 0
        assert "Proposed" in cli("memory", "list").stdout


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
