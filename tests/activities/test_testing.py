"""Stages 4 and 5 with a repository's own commands in the sandbox."""

import pytest

from models.contracts.pipeline import StageResult
from models.domain.stages import StageName, StageStatus
from models.tables.missions import Decision, TestResultRow
from tests.fixtures.product import CHECK, FILES
from tests.fixtures.stage_hosts import Case, Shop, do, sandbox

TESTS, STRESS = StageName.RUN_TESTS, StageName.STRESS_TESTS
MUST_PASS = {"must_pass_tests": ["calc::adds"]}

INLINE = CHECK.replace(
    'classname="calc" name="stands"/>',
    'classname="calc" name="stands"/>$([ -e src/part.txt ] && echo \'<testcase file="src/part.txt" name="inline"/>\')'
    "$(for f in spec/*.txt spec/*/*.txt; do [ -e $f ] && echo \"<testcase file='$f' name='spec'/>\"; done)",
)
HELD = {
    "check.sh": INLINE,
    "src/part.txt": "code, and its own test\n",
    "spec/old.txt": "a test\n",
    ".mission-control.yaml": "test: sh check.sh\njunit: /out/junit.xml\ntest_paths: ['spec/**']\n",
}
LISTED = """\
(echo '<testsuite>'; for name in one two; do echo "<testcase file='check.sh' name='$name'/>"; done
echo '</testsuite>') > /out/junit.xml
"""
SPEED = """\
test: sh check.sh
junit: /out/junit.xml
stress: 'echo "{\\"search.p95\\": $(wc -c < calc.txt)}" > /out/metrics.json; grep -q "a [+-] b" calc.txt'
"""


async def proven(case: Case, **info: int) -> StageResult:
    return await do(case.host.testing.run_tests, case.task(TESTS), **info)


async def stressed(case: Case, **info: int) -> StageResult:
    return await do(case.host.testing.stress_tests, case.task(STRESS), **info)


class TestRunTests:
    async def test_a_fix_is_proven(self, shop: Shop) -> None:
        case = await (await shop.mission(acceptance_criteria=MUST_PASS)).patched()
        answer, record = await proven(case), await case.record(TESTS)
        assert (answer.status, answer.reason) == (StageStatus.PASSED, "2 passed; 1 must-pass proven")
        assert record.result["isolation"] == sandbox().isolation.value
        assert [kind for kind, _ in await case.kept(TESTS)] == ["log", "test", "test", "test"]
        assert "testing patched" in await case.log(TESTS)

    async def test_a_death_before_the_record_is_made_good(self, shop: Shop) -> None:
        case = await (await shop.mission(acceptance_criteria=MUST_PASS)).patched()
        async with case.death():
            await proven(case)
        first = await proven(case, attempt=2)
        assert await proven(case, attempt=3) == first
        assert (len(await case.rows(TestResultRow)), await case.pieces()) == (6, 0)
        assert await case.told("stage.passed") == 3, "stages 1, 3 and 4, each once"

    async def test_another_host_makes_the_commit_again(self, shop: Shop) -> None:
        case = await (await shop.mission(acceptance_criteria=MUST_PASS)).patched()
        case.host = shop.host("two")
        assert (await proven(case)).status is StageStatus.PASSED
        assert (await (await case.job()).mirror.git("cat-file", "-t", case.head_sha)).text == "commit"

    async def test_a_host_with_another_key_says_so(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        case.host = shop.host("two", key="another")
        assert "do all hosts share one key?" in (await proven(case)).reason

    async def test_a_stopped_run_says_so_and_is_not_repeated(self, shop: Shop) -> None:
        config = FILES[".mission-control.yaml"] + "timeout: 2\n"
        case = await shop.mission({".mission-control.yaml": config}, {"check.sh": CHECK + "sleep 60\n"})
        await case.patched()
        assert "the run at the patch was stopped: it ran longer than 2 s" in (await proven(case)).reason
        log = await case.log(TESTS)
        assert log.count("stopped after 2 s: it ran longer than 2 s") == 1
        assert "repeating" not in log

    async def test_the_log_says_why_tests_are_repeated(self, shop: Shop) -> None:
        case = await (await shop.mission(patch={"check.sh": CHECK.replace('"stands"', '"falls"')})).patched()
        await proven(case)
        log = await case.log(TESTS)
        assert [f"repeating 1 test(s) that passed and now fail, {n} of 2" in log for n in (1, 2)] == [True, True]

    async def test_a_candidate_that_breaks_a_test_fails(self, shop: Shop) -> None:
        case = await (await shop.mission(patch={"check.sh": CHECK.replace('"stands"', '"falls"')})).patched()
        assert "each is missing at the patch: calc::stands" in (await proven(case)).reason


class TestFilesThatGo:
    """Nothing that passed is lost unless a human is asked about the file that held it."""

    async def test_source_that_holds_tests_may_not_just_go(self, shop: Shop) -> None:
        case = await (await shop.mission(HELD, {"src/part.txt": None})).patched()
        answer = await proven(case)
        assert answer.status is StageStatus.FAILED
        assert "each is missing at the patch: src/part.txt::inline" in answer.reason

    @pytest.mark.parametrize("moved", [{}, {"spec/new/old.txt": "a test\n"}], ids=["deleted", "moved"])
    async def test_a_test_file_may_go_because_it_is_asked_about(self, shop: Shop, moved: dict[str, str | None]) -> None:
        case = await (await shop.mission(HELD, {"spec/old.txt": None, **moved})).patched()
        assert (await proven(case)).status is StageStatus.PASSED
        assert (await case.record(TESTS)).result["excused"] == ["spec/old.txt::spec"]
        patch = await case.record(StageName.BRANCH_AND_PATCH)
        assert "spec/old.txt" in patch.result["touched"]["existing_tests"]

    async def test_a_test_may_go_from_a_file_that_stays_and_a_human_is_shown_its_name(self, shop: Shop) -> None:
        asked = HELD[".mission-control.yaml"].replace("spec/**", "check.sh")
        files = {"check.sh": LISTED, ".mission-control.yaml": asked}
        case = await (await shop.mission(files, {"check.sh": LISTED.replace("one two", "one")})).patched()
        assert (await proven(case)).status is StageStatus.PASSED
        assert (await case.record(TESTS)).result["excused"] == ["check.sh::two"]
        await case.settle()
        [decision] = await case.rows(Decision)
        assert "tests that passed at the base are gone: check.sh::two" in decision.reasons


class TestStress:
    async def test_what_was_measured_is_kept_as_samples(self, shop: Shop) -> None:
        case = await (await shop.mission({".mission-control.yaml": SPEED})).patched()
        assert (await stressed(case)).status is StageStatus.PASSED
        assert await case.samples("stress/0/0") == {"search.p95": 6.0}
        record = await case.record(STRESS)
        assert record.result["isolation"] == sandbox().isolation.value
        assert record.reason.startswith("exit code 0 after ")

    async def test_a_second_run_adds_nothing(self, shop: Shop) -> None:
        case = await (await shop.mission({".mission-control.yaml": SPEED})).patched()
        async with case.death():
            await stressed(case)
        assert await case.samples("stress/0/0") == {}, "samples and record are one transaction"
        assert await stressed(case, attempt=2) == await stressed(case, attempt=3)
        assert await case.samples("stress/0/0") == {"search.p95": 6.0}

    async def test_a_target_it_measures_holds_in_stage_7_too(self, shop: Shop) -> None:
        target = {"metric_id": "search.p95", "comparator": "<", "target": 10}
        case = await shop.mission({".mission-control.yaml": SPEED}, acceptance_criteria={"metric_targets": [target]})
        await stressed(await case.patched())
        assert (await case.settle()).failed_stage is None
        collected = await case.record(StageName.COLLECT_METRICS)
        assert (collected.status, collected.reason) == (
            StageStatus.PASSED,
            "search.p95 is 6, must be < 10 (1 sample(s))",
        )

    async def test_nothing_is_kept_of_a_patch_that_does_not_pass(self, shop: Shop) -> None:
        case = await shop.mission({".mission-control.yaml": SPEED}, {"calc.txt": "nothing\n"})
        answer = await stressed(await case.patched())
        assert "the stress command fails at the patch" in answer.reason
        assert await case.samples("stress/0/0") == {}


async def test_failing_set_up_fails_the_stage_with_its_isolation(shop: Shop) -> None:
    case = await (await shop.mission({".mission-control.yaml": "setup: 'false'\ntest: sh check.sh\n"})).patched()
    answer, record = await proven(case), await case.record(TESTS)
    assert answer.status is StageStatus.FAILED
    assert (record.result["code"], record.result["isolation"]) == ("environment_failed", sandbox().isolation.value)
