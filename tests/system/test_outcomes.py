"""What a mission comes to, with real git and real commands: metrics, questions, anomalies, and taking a merge back."""

import asyncio
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from tests.fixtures.gates import GATE, Gate, gates
from tests.fixtures.git_repos import Repo
from tests.fixtures.product import CHECK, FILES, FIX, Product
from tests.fixtures.waiting import until

pytestmark = pytest.mark.timeout(180)
PRODUCT = {"commands_at_once": 4}

WINDOW = 0.1
"""Minutes of observation where something is to happen in it: three looks, two seconds apart."""

BROKEN = "[ ! -e broken.txt ] || { rm /out/junit.xml; false; }"
"""Ends the tests where somebody has committed this file."""

SLOWER = "if grep -q 'a + b' calc.txt; then echo slower 900; else echo slower 10; fi\n"
FLAKY = f"""\
sh gate.sh test
{CHECK}
if [ -s /out/open-test ]; then sed -i 's|name="stands"/>|name="stands"><failure/></testcase>|' /out/junit.xml; fi
"""
"""Its second test fails when something is written at the gate."""


@dataclass
class Story:
    """A mission on a repository of its own; its subsystem and its metric are named like it, so none sees another's."""

    product: Product
    name: str
    repo: Repo
    mission: str = ""

    @property
    def tree(self) -> str:
        """The files of the target branch, in one id."""
        return self.repo.git("rev-parse", "main^{tree}").decode()

    async def file(self, window: float = WINDOW, **body: Any) -> "Story":
        """File the mission and start it."""
        criteria = {"observation_window_minutes": window} | body.pop("criteria", {})
        self.mission = await self.product.file(self.repo, subsystem_id=self.name, criteria=criteria, **body)
        return self

    async def measure(self, value: float) -> None:
        """Post a sample of the story's metric."""
        posted = await self.product.api.post("/metrics/observations", json={"metric_id": self.name, "value": value})
        assert posted.status_code == 201, posted.text

    async def report_error(self) -> None:
        """Report an error of the story's subsystem."""
        subject = {"kind": "subsystem", "id": self.name}
        event = {"type": "subsystem.error", "subject": subject, "data": {"message": "totals are off"}}
        posted = await self.product.api.post("/events", json=event)
        assert posted.status_code == 202, posted.text

    @property
    def bound(self) -> dict[str, Any]:
        """Acceptance criteria that hold the story's metric below 100."""
        return {"metric_targets": [{"metric_id": self.name, "comparator": "<", "target": 100}]}

    def stage(self, name: str) -> dict[str, Any]:
        """Read the record of a stage."""
        [record] = [record for record in self.product.stages(self.mission) if record["stage"] == name]
        return record

    def capas(self) -> list[dict[str, Any]]:
        """Read the mission's CAPAs."""
        return self.product.rows("SELECT * FROM capa WHERE mission_id = %s", self.mission)

    async def is_taken_back(self, because: str, tree: str) -> dict[str, Any]:
        """Hold the mission to a rollback that leaves `tree`: one revert, one CAPA, escalated, and the reason why."""
        ended = await self.product.ended(self.mission)
        assert (ended["status"], ended["outcome"]) == ("escalated", "rolled_back"), ended
        assert because in ended["reason"]
        assert (self.repo.sha("main"), self.tree) == (ended["revert_sha"], tree)
        said = self.repo.git("log", "--grep=^Reverts-Mission: ", "--format=%B", "main").decode()
        assert said.count(f"This reverts merge {ended['merge_sha']}") == said.count("Reverts-Mission: ") == 1
        [capa] = self.capas()
        assert because in capa["cause"]
        assert ended["revert_sha"] in capa["corrective"]
        assert self.stage("resolve")["result"]["revert_sha"] == ended["revert_sha"]
        return ended

    async def merges(self) -> dict[str, Any]:
        """Hold the mission to a merge that stays, and that nobody need look into."""
        ended = await self.product.ended(self.mission)
        assert (ended["status"], ended["outcome"]) == ("resolved", "merged"), ended
        self.product.assert_unharmed(self.mission, self.repo)
        assert self.capas() == []
        return ended


def story(product: Product, name: str, files: dict[str, str] | None = None, **config: str) -> Story:
    """Begin a story on a repository with some files, and some commands in its configuration."""
    lines = FILES[".mission-control.yaml"] + "".join(f"{key}: {line}\n" for key, line in config.items())
    return Story(product, name, product.repo(FILES | {".mission-control.yaml": lines} | (files or {})))


class TestAnomalies:
    async def test_what_the_world_shows_for_long_is_taken_back(self, product: Product) -> None:
        await asyncio.gather(
            one_posted_breach_that_lasts(product),
            one_breach_that_passes(product),
            an_error_event(product),
            a_probe_that_breaches(product),
            a_probe_that_breaks(product),
        )

    async def test_a_run_that_fails_at_the_windows_end_leaves_what_others_committed(self, product: Product) -> None:
        it = story(product, "rerun", {"check.sh": CHECK + BROKEN})
        await it.file()
        await product.observing(it.mission)
        it.repo.commit({"broken.txt": "by somebody else\n"}, "Somebody else's")
        it.repo.git("revert", "-n", "-m", "1", "HEAD~1")
        tree = it.repo.git("write-tree").decode()
        it.repo.git("reset", "-q", "--hard")
        ended = await it.is_taken_back("failing at the window's end", tree)
        assert "after the rollback" in ended["reason"], "the other commit still breaks the tests, and that is said"
        assert it.repo.show("main", "broken.txt") == b"by somebody else\n"
        assert it.stage("observe")["status"] == "failed"


async def one_posted_breach_that_lasts(product: Product) -> None:
    it = story(product, "breaches")
    tree = it.tree
    await it.measure(50)
    await it.file(criteria=it.bound)
    await product.observing(it.mission)
    await it.measure(500)
    await it.is_taken_back("breaches was outside its target", tree)
    assert it.stage("observe")["status"] == "failed"


async def one_breach_that_passes(product: Product) -> None:
    it = story(product, "blip")
    await it.measure(50)
    await it.file(2 * WINDOW, criteria=it.bound)
    await product.observing(it.mission)
    await it.measure(500)
    sql = "SELECT 1 FROM stage WHERE mission_id = %s AND stage = 'observe'"
    await until(lambda: bool(product.rows(sql, it.mission)))  # the first look opens the record
    await it.measure(-1000)  # and the mean is within its bound again
    await it.merges()


async def an_error_event(product: Product) -> None:
    it = story(product, "errors")
    tree = it.tree
    await it.report_error()  # before the merge it says nothing about it
    await it.file()
    await product.observing(it.mission)
    await it.report_error()
    await it.is_taken_back("error in errors: totals are off", tree)


async def a_probe_that_breaches(product: Product) -> None:
    it = story(product, "slower", {"probe.sh": SLOWER}, probe="sh probe.sh")
    tree = it.tree
    await it.measure(-2000)  # before the merge this counts, too
    await it.file(criteria=it.bound)
    await it.is_taken_back("slower was outside its target", tree)
    assert [row["value"] for row in probed(it)][:3] == [900, 900, 900]


async def a_probe_that_breaks(product: Product) -> None:
    it = story(product, "unwell", probe="exit 3")
    tree = it.tree
    await it.file()
    await it.is_taken_back("The probe ended with code 3", tree)


def probed(it: Story) -> list[dict[str, Any]]:
    """Read the samples that the mission's own probe took."""
    sql = "SELECT value FROM metric_observation WHERE mission_id = %s AND source LIKE 'probe/%%'"
    return it.product.rows(sql, it.mission)


class TestConflictingRollback:
    async def test_deny_leaves_the_merge_and_approve_tries_again(self, product: Product) -> None:
        await asyncio.gather(denied_rollback(product), repeated_rollback(product))


async def denied_rollback(product: Product) -> None:
    it = story(product, "kept")
    decision = await conflict(it)
    head = it.repo.sha("main")
    await product.resolve(decision, "deny")
    ended = await product.ended(it.mission)
    assert (ended["status"], ended["outcome"], ended["revert_sha"]) == ("escalated", "failed", None)
    assert "the merge stays" in ended["reason"]
    assert (it.repo.sha("main"), len(it.capas())) == (head, 1)


async def repeated_rollback(product: Product) -> None:
    it = story(product, "tried again")
    tree = it.tree
    decision = await conflict(it)
    it.repo.commit(FIX, "Give way")
    await product.resolve(decision, "approve")
    await it.is_taken_back("error in tried again", tree)


async def conflict(it: Story) -> str:
    """Let somebody build on the merge before it has to go; the question that this raises."""
    await it.file()
    await it.product.observing(it.mission)
    it.repo.commit({"calc.txt": "a + b + c\n"}, "Build on it")
    await it.report_error()
    decision = await it.product.pending_decision(it.mission)
    asked = (await it.product.api.get(f"/decisions/{decision}")).json()["data"]
    assert (asked["kind"], asked["risk"]) == ("rollback", "RED")
    assert "calc.txt" in str(asked["reasons"])
    assert it.stage("resolve")["status"] == "waiting_decision"
    return decision


class TestMetricTargets:
    async def test_unmet_and_unmeasured_targets_fail_stage_7(self, product: Product) -> None:
        unmet, absent = story(product, "unmet"), story(product, "absent")
        await unmet.measure(500)
        await asyncio.gather(*(it.file(criteria=it.bound) for it in (unmet, absent)))
        for it, words in ((unmet, "unmet must be < 100: observed 500"), (absent, "absent must be < 100: no sample")):
            ended = await product.ended(it.mission)
            assert (ended["outcome"], words in ended["reason"]) == ("failed", True), ended["reason"]
            assert it.stage("collect_metrics")["status"] == "failed"
            assert len(it.repo.git("log", "--format=%H", "main").split()) == 1

    async def test_what_the_probe_alone_measures_is_kept_of_both_sides_with_evidence_of_every_kind(
        self, product: Product
    ) -> None:
        it = story(product, "met", probe="echo met 20")
        await it.file(0.02, criteria=it.bound)
        await it.merges()
        found = (await product.api.get(f"/missions/{it.mission}/evidence")).json()["data"]
        assert {item["kind"] for item in found["evidence"]} == {"log", "test", "metric", "diagnostics"}
        for item in found["evidence"]:
            stored = await product.api.get(item["uri"].removeprefix("/api/v1"))
            assert stored.status_code == 200, item
        copies = {(one["phase"], one["value"]) for one in found["metric_observations"] if one["phase"]}
        assert copies == {("before_merge", 20), ("after_merge", 20)}


class TestQuestions:
    async def test_a_medium_finding_asks(self, product: Product) -> None:
        it = story(product, "medium")
        await it.file(0.01, patch=FIX | {"load.py": "import pickle\npickle.loads(b'')\n"})
        decision = await product.pending_decision(it.mission)
        asked = (await product.api.get(f"/decisions/{decision}")).json()["data"]
        assert asked["reasons"] == ["the scan found 1 new medium finding(s)"]
        await product.resolve(decision, "approve")
        await it.merges()

    async def test_overrides_are_shown(self, product: Product) -> None:
        it = story(product, "overrides")
        await it.file(0.01, overrides={"test": "sh check.sh again", "timeout": 60})
        decision = await product.pending_decision(it.mission)
        asked = (await product.api.get(f"/decisions/{decision}")).json()["data"]
        assert asked["reasons"] == ["an operator overrides: test, timeout"]
        assert asked["question"]["overrides"] == {"test": "sh check.sh again", "timeout": 60}
        await product.resolve(decision, "approve")
        await it.merges()

    async def test_what_may_only_propose_asks_and_what_may_only_read_changes_nothing(self, product: Product) -> None:
        proposing, reading = story(product, "proposing"), story(product, "reading")
        refs, others = [it.repo.git("for-each-ref") for it in (reading, proposing)]
        await proposing.file(trust_requirements={"memory_write_scope": "propose"})
        await reading.file(trust_requirements={"memory_write_scope": "read_only"})
        decision = await product.pending_decision(proposing.mission)
        asked = (await product.api.get(f"/decisions/{decision}")).json()["data"]
        assert asked["reasons"] == ["the mission's memory_write_scope is propose: it may not merge by itself"]
        assert proposing.repo.git("for-each-ref") == others, "no commit while nobody has answered"
        await product.resolve(decision, "deny")
        assert (await product.ended(proposing.mission))["outcome"] == "denied"
        assert proposing.repo.git("for-each-ref") == others
        ended = await product.ended(reading.mission)
        assert (ended["outcome"], "read_only" in ended["reason"]) == ("failed", True)
        assert [record["stage"] for record in product.stages(reading.mission)][-2:] == ["branch_and_patch", "resolve"]
        assert (reading.stage("branch_and_patch")["git_sha"], reading.repo.git("for-each-ref")) == (None, refs)


class TestJudging:
    async def test_a_flaky_test_is_named_and_not_counted(self, product: Product) -> None:
        it = Story(product, "flaky", product.repo(FILES | {"gate.sh": GATE, "check.sh": FLAKY}))
        async with gates(product) as gate:
            await it.file(0.01, execute=False)
            gate.words[Gate(it.mission, "patched", "test")] = ["fail once"]
            await product.execute(it.mission)
            await it.merges()
        [found] = it.stage("run_tests")["result"]["flaky"]
        assert found["id"] == "calc::stands"
        assert "1 flaky, not counted" in it.stage("run_tests")["reason"]

    async def test_the_results_of_a_base_are_known_to_the_next_mission(self, product: Product) -> None:
        first = story(product, "first")
        await first.file(patch={"calc.txt": "a * b\n"})
        assert (await product.ended(first.mission))["outcome"] == "failed"
        second = await Story(product, "second", first.repo).file(0.01)
        await second.merges()
        logs = [(await product.api.get(f"/missions/{it.mission}/stages/4/log")).text for it in (first, second)]
        assert ["testing base at" in log for log in logs] == [True, False]
        assert ["are known" in log for log in logs] == [False, True]


async def test_a_record_that_was_altered_afterwards_is_found_out(product: Product) -> None:
    it = await story(product, "altered").file(0.01)
    await it.merges()
    with psycopg.connect(product.url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")  # else the database refuses
        connection.execute("UPDATE stage SET reason = 'better' WHERE mission_id = %s AND position = 3", (it.mission,))
    with pytest.raises(AssertionError, match="better"):
        product.assert_unharmed(it.mission, it.repo)
