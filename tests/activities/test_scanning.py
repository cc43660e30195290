"""Stage 4s: kept scanners and a repository's own, on a candidate's commit."""

import json
from typing import Any

import pytest

from models.domain.errors import Gone
from models.domain.stages import StageName, StageStatus
from models.store import blobs, candidates
from models.tables.missions import Candidate
from tests.fixtures.stage_hosts import Case, Shop, do, sandbox

SCAN, TESTS = StageName.SECURITY_SCAN, StageName.RUN_TESTS
SECRET = {"config.py": 'AWS = "AKIA' + 'IOSFODNN7EXAMPLQ"\nPASSWORD = "' + "c5f1a9e07b3d48d2a6" + '"\n'}
PLACE = {"physicalLocation": {"artifactLocation": {"uri": "calc.txt"}, "region": {"startLine": 1}}}
FINDING = {"ruleId": "own-1", "level": "error", "message": {"text": "bad"}, "locations": [PLACE]}


def sarif(*findings: dict[str, Any]) -> str:
    """What the repository's own scanner writes."""
    return json.dumps({"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "own"}}, "results": findings}]})


OWN = {
    ".mission-control.yaml": "test: sh check.sh\nscan: sh scan.sh\n",
    "scan.sh": "if grep -q 'a + b' calc.txt; then cp found /out/scan.sarif; else cp none /out/scan.sarif; fi\n",
    "found": sarif(FINDING),
    "none": sarif(),
}


async def scanned(case: Case, **info: int) -> StageStatus:
    return (await do(case.host.scanning.security_scan, case.task(SCAN), **info)).status


class TestKeptScanners:
    async def test_a_clean_patch_passes_and_no_command_ran(self, shop: Shop) -> None:
        case = await (await shop.mission()).patched()
        assert [await scanned(case), await scanned(case, attempt=2)] == [StageStatus.PASSED] * 2
        record = await case.record(SCAN)
        assert (record.reason, "isolation" in record.result) == ("no new findings", False)

    async def test_a_secret_is_taken_away_with_the_patch_that_held_it(self, shop: Shop) -> None:
        case = await (await shop.mission(patch=dict(SECRET))).patched()
        async with case.death():
            await scanned(case)
        [filed] = await case.rows(Candidate)
        async with case.db.workspace(case.workspace_id) as session:
            assert await blobs.get(session, case.workspace_id, filed.digest), "nothing is removed without the record"
        for attempt in (2, 3):
            assert await scanned(case, attempt=attempt) is StageStatus.FAILED
        async with case.db.workspace(case.workspace_id) as session:
            [filed] = await candidates.of_mission(session, case.workspace_id, case.mission_id)
            with pytest.raises(Gone, match="it was sent to us"):
                await blobs.get(session, case.workspace_id, filed.digest or "")

    async def test_a_secret_leaves_no_file_of_this_host(self, shop: Shop) -> None:
        case = await (await shop.mission(patch=dict(SECRET))).patched()
        assert await scanned(case) is StageStatus.FAILED
        job = await case.job()
        objects = await job.mirror.git("cat-file", "--batch-all-objects", "--batch", "--unordered")
        assert b"PASSWORD" not in objects.out
        assert not [path for path in job.bench.root.rglob("*") if path.is_file()]

    async def test_what_another_mission_made_of_the_same_patch_stays(self, shop: Shop) -> None:
        case = await (await shop.mission(patch=dict(SECRET))).patched()
        other = await (await shop.another(case)).patched()
        assert await scanned(case) is StageStatus.FAILED
        await do(case.host.code.close_workbench, case.close)
        shown = (await other.job()).mirror.git("show", f"{other.head_sha}:config.py")
        assert b"PASSWORD" in (await shown).out


class TestRegisteredScanner:
    async def test_a_new_high_finding_fails_the_stage(self, shop: Shop) -> None:
        case = await (await shop.mission(OWN)).patched()
        assert await scanned(case) is StageStatus.FAILED
        record = await case.record(SCAN)
        assert record.reason == "1 new high finding(s): calc.txt:1 own-1 (own-1)"
        assert record.result["isolation"] == sandbox().isolation.value

    async def test_another_host_scans_what_it_made_again(self, shop: Shop) -> None:
        case = await (await shop.mission(OWN)).patched()
        case.host = shop.host("two")
        assert await scanned(case) is StageStatus.FAILED
        assert (await case.record(SCAN)).git_sha == case.head_sha
