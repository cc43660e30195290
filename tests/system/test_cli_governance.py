"""The command line of those who govern: keys, people, policy, budgets, runs, the audit log, memory."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from cli.client import connect
from tests.fixtures.command_line import (
    Cli,
    cli,
    environment,
    merged,
    mission_file,
    portal,
    repository,
    stack,
)
from worker.dev.stack import Stack

__all__ = ["cli", "environment", "merged", "mission_file", "portal", "repository", "stack"]

pytestmark = pytest.mark.timeout(300)


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
        assert (refused.returncode, "is the last admin of the workspace with a key" in refused.stderr) == (1, True)
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
    def test_its_keys_are_written_whole_or_not_at_all(self, cli: Cli, tmp_path: Path) -> None:
        [key] = json.loads(cli("audit", "keys", "--json").stdout)
        assert cli("audit", "keys").stdout == f"{key['public_key']}\n"
        kept, none = tmp_path / "keys.pub", tmp_path / "none.pub"
        assert cli("audit", "keys", "-o", str(kept)).returncode == 0
        assert kept.read_text() == f"{key['public_key']}\n"
        assert cli("audit", "keys", "-o", str(none), "--api-key", "mc_nobody").returncode == 1
        assert not none.exists()

    def test_what_an_act_says_is_removed(self, cli: Cli, merged: tuple[str, str]) -> None:
        [act] = json.loads(cli("audit", "list", "--subject", merged[0], "--action", "mission.created", "--json").stdout)
        words = ("audit", "redact", str(act["id"]), "--reason", "named a customer")
        assert cli(*words, text="n\n").returncode == 1
        said = " ".join(cli(*words, "--yes").stdout.split())
        assert "proofs hold" in said
        assert f"mission {merged[0]} and the event keep what they say" in said
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
