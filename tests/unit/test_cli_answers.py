"""What commands print of the API's answers, and how they name what was typed."""

from pathlib import Path

import pytest

from tests.fixtures.answers import Api, Json

MISSION: Json = {
    "mission_id": "m1",
    "status": "open",
    "paused": False,
    "blocked": None,
    "outcome": None,
    "severity": "medium",
    "workspace": {"repo_path": "/r", "working_branch": "main"},
    "context": {},
    "acceptance_criteria": {},
    "remediation_history": [],
    "symptoms": [],
    "assigned_to": None,
    "created_by": "olga",
    "trust_requirements": {
        "required_trust_score": 0,
        "allowed_roles": [],
        "memory_write_scope": "persist",
        "requires_governance_approval": False,
    },
    "created_at": "2026-01-10T10:00:00Z",
    "links": {"evidence": "/e"},
}
QUESTION: Json = {
    "decision_id": "d1",
    "mission_id": None,
    "kind": "registration",
    "status": "pending",
    "risk": "YELLOW",
    "terms": {"requesters": ["olga", "probe"]},
    "requested_at": "2026-01-10T10:00:00Z",
    "expires_at": None,
    "reasons": ["an agent asks to be let in"],
}


def refusing(message: str) -> Api:
    return Api({"code": "invalid_input", "message": message, "requestId": "r"}, status=422)


def test_a_list_of_questions_says_what_is_asked_by_whom_and_until_when() -> None:
    printed = Api({"items": [QUESTION, QUESTION | {"expires_at": "2026-01-11T10:00:00Z"}]}).run("decision", "list")
    head, first, second = printed.stdout.splitlines()
    assert head.split() == ["decision", "mission", "kind", "status", "risk", "by", "expires", "reasons"]
    assert "registration  pending  YELLOW  olga, probe  never" in first
    assert "2026-01-1" in second


def test_what_a_mission_was_filed_with_has_a_row_each() -> None:
    filed = MISSION | {
        "symptoms": [{"description": "VAT\nstatus  resolved"}, {"description": "slow"}],
        "acceptance_criteria": {"must_pass_tests": ["a.py::t\noutcome  merged"]},
        "remediation_history": [{"action": "note", "actor": "bot", "result": "seen\nreason  none", "at": "2026-01-10"}],
    }
    printed = Api(filed, {"items": []}).run("mission", "show", "m1").stdout
    rows = [" ".join(row.split()) for row in printed.splitlines()]
    assert {"symptoms VAT\\nstatus resolved", "slow", "must pass a.py::t\\noutcome merged"} <= set(rows)
    assert "notes bot: seen\\nreason none" in rows


def test_whose_a_mission_is_and_what_is_asked_of_them_is_shown() -> None:
    trust = {"required_trust_score": 0.7, "allowed_roles": ["a1", "lead"], "requires_governance_approval": True}
    asked = MISSION | {"assigned_to": "a1", "trust_requirements": MISSION["trust_requirements"] | trust}
    shown = _shown(asked)
    assert {
        "assigned to a1",
        "trust score required 0.7",
        "roles a1, lead",
        "memory write scope persist",
        "requires governance approval yes",
    } <= set(shown)
    assert [row for row in shown if row.startswith("filed 2026-01-10 ") and row.endswith(", by olga")]


def test_of_a_mission_that_asks_nothing_nothing_is_shown() -> None:
    assert not [row for row in _shown(MISSION) if row.startswith(("assigned", "trust", "roles", "requires"))]


def _shown(mission: Json) -> list[str]:
    printed = Api(mission, {"items": []}).run("mission", "show", "m1").stdout
    return [" ".join(row.split()) for row in printed.splitlines()]


def test_missions_are_listed_with_whom_they_are_for() -> None:
    listed = MISSION | {"assigned_to": "a1", "stage": None, "subsystem_id": "vat"}
    api = Api({"items": [listed]})
    head, row = api.run("mission", "list", "--assigned-to", "a1").stdout.splitlines()
    assert "stage  assigned to  filed" in head
    assert "a1" in row.split()
    assert "assigned_to=a1" in api.asked[0][0]


class TestStarting:
    """A mission that was started is shown as it is then."""

    words = ("mission", "execute", "m1")

    def test_it_runs(self) -> None:
        printed = Api({}, MISSION, MISSION, MISSION | {"status": "in_progress"}).run(*self.words).stdout
        assert "in_progress" in printed
        assert "it runs; `mission watch m1` follows it" in printed

    def test_what_is_filed_and_started_is_told_alike(self) -> None:
        api = Api(MISSION, {}, MISSION | {"status": "in_progress"})
        ended = api.run("mission", "create", "--repo", "r", "--symptom", "s", "--ref", "fix", "--execute")
        assert [path.removeprefix("/api/v1/missions") for path, _ in api.asked] == ["", "/m1/execute", "/m1"]
        assert "in_progress" in ended.stdout
        assert "it runs; `mission watch m1` follows it" in ended.stdout

    def test_it_is_held(self) -> None:
        printed = Api({}, MISSION | {"paused": True, "blocked": "the cap is spent"}).run(*self.words).stdout
        assert "the cap is spent" in printed
        assert "mission watch" not in printed

    def test_it_has_ended_already(self) -> None:
        printed = Api({}, MISSION | {"status": "escalated", "outcome": "failed"}).run(*self.words).stdout
        assert "mission watch" not in printed

    def test_it_is_started_and_not_shown(self) -> None:
        ended = Api({}, {"code": "rate_limited", "message": "wait 20 s", "requestId": "r"}).run(*self.words)
        assert ended.exit_code == 1
        told = "the mission is started, and `mission watch m1` follows it; it is not shown: wait 20 s"
        assert told in " ".join(ended.stderr.split())

    def test_no_worker_takes_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cli.missions.TAKEN_UP_SECONDS", 0.2)
        assert "it waits for a worker; `mission watch m1` follows it" in Api({}, MISSION).run(*self.words).stdout


@pytest.mark.parametrize(
    ("words", "said", "shown"),
    [
        (("decision", "deny", "d", "--reason", ""), "body.explanation: too short", "--reason: too short"),
        (("agent", "reject", "a", "--reason", ""), "body.explanation: too short", "--reason: too short"),
        (("budget", "set", "run", "level", "x", "--usd", "x"), "body.cap_usd: no number", "--usd: no number"),
        (("cost", "--by", "x"), "query.group_by: no such", "--by: no such"),
        (("decision", "list", "--risk", "x"), "query.risk: no such", "risk: no such"),
        (("mission", "note", "m", "x"), "body.a[0].b: x; body.c: y; and 2 more", "a[0].b: x; c: y; and 2 more"),
        (("mission", "note", "m", "x"), "body: give either", "give either"),
    ],
)
def test_what_is_refused_is_named_as_it_was_typed(words: tuple[str, ...], said: str, shown: str) -> None:
    refused = refusing(said).run(*words)
    assert (refused.exit_code, refused.stderr.splitlines()[0]) == (1, f"invalid_input: {shown}")


@pytest.mark.parametrize(
    ("route", "command"),
    [
        ("GET /decisions", "mission-control decision list"),
        ("GET /decisions?status=pending", "mission-control decision list"),
        ("GET /workspaces/shop/members", "mission-control member list"),
        ("GET /memory", "mission-control memory list"),
        ("GET /policy/versions", "mission-control policy versions"),
        ("POST /agents/probe/approve", "mission-control agent approve probe"),
        ("POST /agents", "mission-control agent register"),
        ("PUT /budgets", "mission-control budget set"),
        ("POST /agents/probe/rotate-key", "mission-control agent rotate-key probe"),
        ("GET /alerts?status=open", "mission-control alert list --status open"),
        (
            "GET /missions?assigned_to=…&status=open",
            "mission-control mission list --assigned-to NAME --status open",
        ),
        ("GET /queue/next", "GET /queue/next"),
        ("POST /runs", "POST /runs"),
    ],
)
def test_what_helps_is_named_as_a_command_where_there_is_one(route: str, command: str) -> None:
    refused = Api({"code": "no", "message": f"there is none; `{route}` helps", "requestId": "r"}).run("run", "list")
    assert refused.stderr.splitlines()[0] == f"no: there is none; `{command}` helps"


def test_what_only_an_agent_sends_is_said_in_words() -> None:
    said = "it is silent: send `POST /agents/agent_1/heartbeat` more often than every 90 seconds"
    refused = Api({"code": "agent_stale", "message": said, "requestId": "r"}).run("run", "list")
    told = "agent_stale: it is silent: let the agent send heartbeats more often than every 90 seconds"
    assert refused.stderr.splitlines()[0] == told


@pytest.mark.parametrize("noun", ["audit", "activity"])
@pytest.mark.parametrize("behind", ["", "T00:00:00Z"])
def test_acts_are_listed_of_a_time(noun: str, behind: str) -> None:
    api = Api({"items": []})
    assert api.run(noun, "list", "--from", f"2026-01-10{behind}", "--to", f"2026-01-11{behind}").exit_code == 0
    assert api.asked[0][0].endswith("&from=2026-01-10T00%3A00%3A00Z&to=2026-01-11T00%3A00%3A00Z")


def test_an_id_is_printed_as_it_is() -> None:
    """And not as an address spells it."""
    odd = "budget.ticket.a?b#c%2Fd.1"
    resolved = {"decision_id": odd, "status": "approved", "answers": [], "single_operator": False}
    api = Api(resolved | {"terms": {"people": 1}})
    assert api.run("decision", "approve", odd, "--reason", "x").stdout == f"approved {odd}\n"
    assert api.asked[0][0] == "/api/v1/decisions/budget.ticket.a%3Fb%23c%252Fd.1/resolve"
    assert Api({"alert_id": "a?b", "status": "resolved"}).run("alert", "resolve", "a?b").stdout == "resolved a?b\n"


@pytest.mark.parametrize(("mission", "shown"), [("m1", "m1"), (None, "run-1")])
def test_a_verdict_says_who_acted_and_in_what(mission: str | None, shown: str) -> None:
    told = {"action": "shell", "principal": {"name": "coder"}, "context": {"facts": {"run_id": "run-1"}}}
    said = {"action": "shell", "risk": "RED", "outcome": "ask", "reasons": ["so"], "at": "2026-01-10T10:00:00Z"}
    printed = Api({"items": [said | {"mission_id": mission, "input": told}]}).run("policy", "verdicts").stdout
    head, row = printed.splitlines()
    assert head.split() == ["when", "who", "action", "mission", "or", "run", "risk", "outcome", "because"]
    assert row.split()[2:] == ["coder", "shell", shown, "RED", "ask", "so"]


class TestPolicy:
    """The text of the policy."""

    @pytest.mark.parametrize("verb", ["create", "try"])
    def test_its_file_is_named_as_it_was_given(self, verb: str, tmp_path: Path) -> None:
        (tmp_path / "mine.yaml").write_text("rules: 1\n")
        said = {"code": "policy_invalid", "message": "policy.yaml: line 1: `rules`: no list", "requestId": "r"}
        refused = Api(said).run("policy", verb, str(tmp_path / "mine.yaml"))
        assert refused.stderr.splitlines()[0] == f"policy_invalid: {tmp_path}/mine.yaml: line 1: `rules`: no list"

    def test_shown_is_the_file_as_it_stands(self) -> None:
        shown = Api({"version": 3, "created_by": "olga", "source": "rules: []"}).run("policy", "show")
        assert (shown.stdout, shown.stderr) == ("rules: []", "# version 3, by olga\n")

    def test_a_kept_version_is_tried_by_its_number(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("2").write_text("rules: []")
        for given, sent in (("3", {"version": 3}), ("2", {"source": "rules: []"}), ("./2", {"source": "rules: []"})):
            api = Api({"judged": 0, "changed": 0})
            assert api.run("policy", "try", given).exit_code == 0
            assert api.asked == [("/api/v1/policy/try", sent | {"limit": 1000})]

    def test_what_another_version_has_fewer_is_told_before_and_after(self) -> None:
        full, bare = (dict.fromkeys(("actions", "secret_paths", "rules", "resolve"), number) for number in (14, 0))
        bare["resolve"] = 15
        chosen = {"version": 2, "size": bare, "before": 1, "before_size": full}
        said = "0 rules (14 fewer), 15 kinds of decisions under `resolve` (1 more) than version 1"
        api = Api({"version": 1, "size": full}, {"version": 2, "size": bare}, chosen)
        asked = api.run("policy", "activate", "2")
        assert (asked.exit_code, [path.removeprefix("/api/v1/policy") for path, _ in api.asked]) == (
            1,
            ["", "/versions/2"],
        )
        assert f"{said}. Judge everything by it from now on?" in asked.stderr
        done = Api(chosen).run("policy", "activate", "2", "--yes")
        assert (done.exit_code, said in done.stdout, "0 actions with a class (14 fewer)" in done.stdout) == (
            0,
            True,
            True,
        )
        same = Api(chosen | {"size": full}).run("policy", "activate", "2", "--yes")
        assert "version 2 is in force; it has as much of each part as version 1" in same.stdout


class TestMoreThanIsShown:
    """A list that was cut is never taken for the whole."""

    more = "there are more than the 2 shown: --all shows all, --limit NUMBER so many"

    @pytest.mark.parametrize("form", [(), ("--json",)])
    def test_is_told_apart_from_the_answer(self, form: tuple[str, ...]) -> None:
        listed = Api({"items": [QUESTION] * 2, "next_cursor": "c"}).run("decision", "list", "--limit", "2", *form)
        assert (listed.exit_code, listed.stderr.strip()) == (0, self.more)
        assert "there are more" not in listed.stdout

    def test_not_of_what_is_whole(self) -> None:
        page = {"items": [QUESTION] * 2, "next_cursor": "c"}
        for words in (("--limit", "4"), ("--all",)):
            listed = Api(page, page | {"next_cursor": None}).run("decision", "list", *words)
            assert (listed.stderr, listed.stdout.count("registration")) == ("", 4)

    @pytest.mark.parametrize("form", [(), ("--json",)])
    def test_of_costs_the_rest_is_summed_up(self, form: tuple[str, ...]) -> None:
        sums = {"tokens_in": 1, "tokens_out": 2, "calls": 3}
        items = [{"key": "run_1", "usd": "0.9"} | sums, {"key": None, "usd": "0.1"} | sums]
        total = {"usd": "1.010000001", "tokens_in": 12, "tokens_out": 14, "calls": 16}
        told = Api({"group_by": "run", "items": items, "total": total, "groups": 12}).run("cost", "--by", "run", *form)
        narrow = "the 2 dearest are shown, and 10 others as one: --since and --until narrow them"
        assert (told.exit_code, told.stderr.strip()) == (0, narrow)
        rows = [line.split() for line in told.stdout.splitlines()]
        assert form or rows[-2:] == [
            ["10", "others", "0.010000001", "10", "10", "10"],
            ["total", *map(str, total.values())],
        ]

    def test_not_of_costs_that_are_all_there(self) -> None:
        total = {"usd": "0", "tokens_in": 0, "tokens_out": 0, "calls": 0}
        told = Api({"group_by": "day", "items": [], "total": total, "groups": 0}).run("cost")
        assert (told.stderr, "others" in told.stdout) == ("", False)

    def test_nor_of_what_is_shown_with_something_else(self) -> None:
        change = {"at": "2026-01-10T10:00:00Z", "mission_id": "m1", "outcome": "merged", "before": 0.5, "after": 0.6}
        api = Api({"name": "coder", "score": 0.5}, {"items": [change] * 2, "next_cursor": "c"})
        assert api.run("agent", "trust", "coder", "--limit", "2").stderr.strip() == self.more


@pytest.mark.parametrize(
    ("words", "sort"),
    [
        ((), "expires_at"),
        (("--status", "any"), "-requested_at"),
        (("--status", "denied"), "-requested_at"),
        (("--sort", "risk"), "risk"),
    ],
)
def test_what_waits_is_listed_by_when_its_time_is_over(words: tuple[str, ...], sort: str) -> None:
    api = Api({"items": []})
    api.run("decision", "list", *words)
    assert f"&sort={sort}" in api.asked[0][0]


def test_a_state_that_is_none_is_answered_with_all_words() -> None:
    refused = Api({}).run("decision", "list", "--status", "foo")
    assert refused.exit_code == 2
    told = " ".join(refused.stderr.replace("│", " ").split())
    assert told.endswith("'foo' is not one of 'pending', 'approved', 'denied', 'expired', 'canceled', 'any'.")
    assert "Value error" not in told
