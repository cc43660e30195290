"""Bad input to the whole product: refused at the door or in a stage, with the reason, and nothing is left behind."""

import shutil
from typing import Any

import pytest

from models.domain.patches import MAX_PATCH_BYTES
from tests.fixtures.git_repos import Repo
from tests.fixtures.product import CHECK, FILES, FIX, Product

pytestmark = pytest.mark.timeout(300)

NEW_FILE = "--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n"
LINK = (
    "diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n"
    "@@ -0,0 +1 @@\n+{target}\n\\ No newline at end of file\n"
)
SECRET = "AKIA" + "ZQ3DRSTUVWXY2345"
"""Looks like a key of AWS, and is put together here so that no scanner finds it in this file."""


@pytest.fixture(scope="module")
def shared(product: Product) -> Repo:
    """A repository that no mission of this file changes."""
    return product.repo()


def request(repo: Repo, **changes: Any) -> dict[str, Any]:
    """Make a mission's body."""
    body = {"subsystem_id": "calc", "severity": "low", "workspace_repo_path": str(repo.path)}
    return body | changes


async def refused(product: Product, body: dict[str, Any], status: int, code: str) -> str:
    """File what must be refused; the message."""
    before = product.rows("SELECT count(*) AS n FROM mission")
    answer = await product.api.post("/missions", json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code, error
    assert product.rows("SELECT count(*) AS n FROM mission") == before
    return str(error["message"])


async def fails(product: Product, repo: Repo, *, stage: str, saying: str, **body: Any) -> str:
    """Run a mission that must fail in `stage`, and hold it to leaving nothing."""
    before = repo.git("for-each-ref")
    mission = await product.file(repo, **body)
    ended = await product.ended(mission)
    assert (ended["status"], ended["outcome"]) == ("escalated", "failed"), ended["reason"]
    assert saying in ended["reason"], ended["reason"]
    [record] = [record for record in product.stages(mission) if record["status"] == "failed"]
    assert (record["stage"], saying in record["reason"]) == (stage, True)
    left_nothing(product, mission)
    assert repo.git("for-each-ref") == before
    return mission


def left_nothing(product: Product, mission: str) -> None:
    """No worktree, process, branch or question outlives a mission."""
    assert not (product.stack.settings.data_dir / "workbenches/default" / mission).exists()
    assert product.strays(mission) == []
    assert product.rows("SELECT * FROM decision WHERE mission_id = %s AND status = 'pending'", mission) == []
    assert product.rows("SELECT * FROM workbench WHERE mission_id = %s AND closed_at IS NULL", mission) == []


class TestRefusedAtTheDoor:
    @pytest.mark.parametrize(
        ("diff", "code"),
        [
            ("", "patch_empty"),
            ("\n \n", "patch_empty"),
            ("this is no diff\n", "patch_not_a_diff"),
            ("diff --git a/i b/i\nBinary files a/i and b/i differ\n", "patch_binary"),
            (NEW_FILE.format(path="../out"), "patch_escapes"),
            (NEW_FILE.format(path=".git/hooks/pre-push"), "patch_escapes"),
            (NEW_FILE.format(path="sub/.GIT/config"), "patch_escapes"),
            (LINK.format(target="../../etc"), "patch_symlink_escape"),
            (LINK.format(target="up/../../etc"), "patch_symlink_escape"),
            (LINK.format(target="/etc/passwd"), "patch_symlink_escape"),
        ],
    )
    async def test_patches(self, product: Product, shared: Repo, diff: str, code: str) -> None:
        await refused(product, request(shared, patch_candidates=[{"diff": diff}]), 422, code)

    async def test_a_patch_over_the_limit(self, product: Product, shared: Repo) -> None:
        diff = NEW_FILE.format(path="big") + "+" * MAX_PATCH_BYTES
        await refused(product, request(shared, patch_candidates=[{"diff": diff}]), 422, "patch_too_large")

    async def test_a_body_over_the_limit(self, product: Product) -> None:
        most = product.stack.settings.max_body_bytes
        answer = await product.api.post("/missions", content=b" " * (most + 1))
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")

    @pytest.mark.parametrize(
        "changes",
        [
            {"unknown": 1},
            {"acceptance_criteria": {"must_pas": []}},
            {"severity": 3},
            {"severity": "urgent"},
            {"symptoms": "all"},
            {"patch_candidates": [{"diff": 1}]},
            {"patch_candidates": [{}]},
            {"overrides": {"tests": "true"}},
            {"acceptance_criteria": {"observation_window_minutes": -1}},
            {"repository": "also"},
        ],
    )
    async def test_unknown_keys_and_wrong_types(self, product: Product, shared: Repo, changes: dict[str, Any]) -> None:
        message = await refused(product, request(shared, **changes), 422, "invalid_input")
        assert message

    async def test_a_repository_outside_the_roots(self, product: Product, shared: Repo) -> None:
        outside = Repo(product.root / "outside")
        shutil.copytree(shared.path, outside.path)
        link = product.root / "repositories/inside"
        link.symlink_to(outside.path)
        for place in (outside.path, link, product.root / "repositories/../outside"):
            body = request(shared) | {"workspace_repo_path": str(place)}
            await refused(product, body, 422, "repository_outside_roots")

    async def test_an_idempotency_key_reused(self, product: Product, shared: Repo) -> None:
        key = {"Idempotency-Key": "once"}
        first = await product.api.post("/missions", json=request(shared), headers=key)
        again = await product.api.post("/missions", json=request(shared), headers=key)
        other = await product.api.post("/missions", json=request(shared, severity="high"), headers=key)
        assert (first.status_code, again.status_code, other.status_code) == (201, 201, 409)
        assert again.json()["data"] == first.json()["data"]
        assert other.json()["error"]["code"] == "idempotency_key_reused"

    async def test_no_candidate(self, product: Product, shared: Repo) -> None:
        mission = await product.file(shared, execute=False, patch_candidates=[])
        answer = await product.api.post(f"/missions/{mission}/execute", json={})
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "no_candidate")


class TestFailsInItsStage:
    async def test_a_branch_that_is_not_there(self, product: Product, shared: Repo) -> None:
        saying = "The repository has no branch 'nowhere'."
        await fails(product, shared, stage="fetch_context", saying=saying, workspace_branch="nowhere")

    async def test_a_patch_that_does_not_apply(self, product: Product, shared: Repo) -> None:
        diff = "--- a/calc.txt\n+++ b/calc.txt\n@@ -1 +1 @@\n-no such line\n+a + b\n"
        await fails(
            product, shared, stage="branch_and_patch", saying="does not apply", patch_candidates=[{"diff": diff}]
        )

    async def test_a_link_that_leaves_through_another(self, product: Product) -> None:
        repo = product.repo(FILES | {"deep/er/file": "x"})
        (repo.path / "deep/er/top").symlink_to("../..")
        repo.commit({})
        diff = LINK.format(target="deep/er/top/../etc")
        saying = "Symbolic links lead out of the tree: l."
        await fails(product, repo, stage="branch_and_patch", saying=saying, patch_candidates=[{"diff": diff}])

    async def test_no_test_command(self, product: Product) -> None:
        repo = product.repo({"calc.txt": "a - b\n"})
        await fails(product, repo, stage="fetch_context", saying="No test command")

    async def test_a_configuration_that_cannot_be_read(self, product: Product) -> None:
        repo = product.repo(FILES | {".mission-control.yaml": "tset: sh check.sh\n"})
        await fails(product, repo, stage="fetch_context", saying="tset")

    async def test_zero_tests(self, product: Product) -> None:
        check = "echo '<testsuite/>' > /out/junit.xml\n"
        repo = product.repo(FILES | {"check.sh": check})
        await fails(product, repo, stage="run_tests", saying="test", criteria={"must_pass_tests": []})

    @pytest.mark.parametrize(
        ("name", "saying"), [("calc::nothing", "calc::nothing"), ("twice", "twice"), ("calc::stands", "passes before")]
    )
    async def test_must_pass_names(self, product: Product, name: str, saying: str) -> None:
        both = '<testcase classname="a" name="twice"/><testcase classname="b" name="twice"/><testcase'
        repo = product.repo(FILES | {"check.sh": CHECK.replace("<testcase", both, 1)})
        await fails(product, repo, stage="run_tests", saying=saying, criteria={"must_pass_tests": [name]})

    async def test_a_repository_deleted_before_it_starts(self, product: Product) -> None:
        repo = product.repo()
        mission = await product.file(repo, execute=False)
        shutil.rmtree(repo.path)
        await product.execute(mission)
        ended = await product.ended(mission)
        assert (ended["outcome"], "no git repository at that path" in ended["reason"]) == ("failed", True), ended[
            "reason"
        ]
        assert str(product.root) not in ended["reason"]
        left_nothing(product, mission)

    async def test_a_dirty_checkout_of_the_target(self, product: Product) -> None:
        repo = product.repo()
        head = repo.sha()
        mission = await product.file(repo, execute=False)
        repo.write({"calc.txt": "my own work\n"})
        await product.execute(mission)
        ended = await product.ended(mission)
        assert ended["outcome"] == "failed", ended["reason"]
        assert "uncommitted" in ended["reason"], ended["reason"]
        assert (repo.sha(), (repo.path / "calc.txt").read_text()) == (head, "my own work\n")
        left_nothing(product, mission)


class TestAsksAHuman:
    @pytest.mark.parametrize(
        ("patch", "because"),
        [
            ({".mission-control.yaml": "test: 'true'\n"}, ".mission-control.yaml"),
            ({".github/workflows/ci.yaml": "on: push\n"}, "CI"),
            ({"tests/test_old.txt": "weaker\n"}, "existing tests"),
        ],
    )
    async def test_a_patch_that_changes_its_own_law(
        self, product: Product, patch: dict[str, str], because: str
    ) -> None:
        repo = product.repo(FILES | {"tests/test_old.txt": "strict\n"})
        mission = await product.file(repo, patch=FIX | patch)
        decision = await product.pending_decision(mission)
        asked = (await product.api.get(f"/decisions/{decision}")).json()["data"]
        assert because in str(asked), asked
        await product.resolve(decision, "deny")
        assert (await product.ended(mission))["outcome"] == "denied"
        left_nothing(product, mission)
        assert repo.show("main", "calc.txt") == b"a - b\n"

    async def test_a_push_that_conflicts(self, product: Product) -> None:
        repo = product.repo()
        mission = await product.file(repo, requires_governance_approval=True)
        decision = await product.pending_decision(mission)
        pushed = repo.commit({"calc.txt": "b - a\n"}, "Somebody else's")
        await product.resolve(decision, "approve")
        ended = await product.ended(mission)
        assert ended["outcome"] == "failed", ended
        assert "does not apply to the target branch" in ended["reason"], ended["reason"]
        assert repo.sha("main") == pushed
        left_nothing(product, mission)


class TestASecretInThePatch:
    async def test_is_blocked_and_stands_nowhere(self, product: Product) -> None:
        repo = product.repo()
        patch = FIX | {"deploy.py": f"aws_access_key_id = '{SECRET}'\n"}
        mission = await fails(product, repo, stage="security_scan", saying="deploy.py:1", patch=patch)
        await stands_nowhere(product, mission)

    async def test_is_not_told_by_tests_that_would_quote_it(self, product: Product) -> None:
        key = "key=$(cut -d\\' -f2 deploy.py 2>/dev/null)\necho told: $key\n"
        case = '<testcase name="of[$key]"><failure message="$key"/></testcase>'
        tests = {"check.sh": key + CHECK.replace('name="stands"/>', f'name="stands"/>{case}')}
        repo = product.repo(FILES | tests)
        patch = {"deploy.py": f"aws_access_key_id = '{SECRET}'\n"}  # without the fix: the tests would fail, too
        mission = await fails(product, repo, stage="security_scan", saying="deploy.py:1", patch=patch)
        assert "run_tests" not in {record["stage"] for record in product.stages(mission)}
        await stands_nowhere(product, mission)

    async def test_is_taken_away_also_where_the_patch_does_not_apply(self, product: Product) -> None:
        diff = f"--- a/gone.py\n+++ b/gone.py\n@@ -1 +1 @@\n-key = ''\n+key = '{SECRET}'\n"
        failure = {"stage": "branch_and_patch", "saying": "does not apply"}
        mission = await fails(product, product.repo(), **failure, patch_candidates=[{"diff": diff}])
        await stands_nowhere(product, mission)


async def stands_nowhere(product: Product, mission: str) -> None:
    """Hold a mission to neither keeping nor telling the secret of its patch."""
    assert holders(product) == []
    answer = await product.api.get(f"/missions/{mission}/diff")
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "content_removed")
    told = [await product.api.get(f"/missions/{mission}{place}") for place in ("", "/stages", "/evidence")]
    told += [
        await product.api.get(f"/missions/{mission}/blobs/{kept['digest']}")
        for kept in told[2].json()["data"]["evidence"]
    ]
    told += [
        await product.api.get(f"/missions/{mission}/stages/{record['stage']}/log") for record in product.stages(mission)
    ]
    assert not [answer.url for answer in told if SECRET in answer.text]


def holders(product: Product) -> list[str]:
    """Say where the secret's value stands: in a table, a log, or a file of the data folder."""
    found = []
    tables = (
        "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')"
    )
    for row in product.rows(tables):
        name = row["relname"]
        sql = f'SELECT 1 FROM "{name}" AS t WHERE t::text LIKE %s OR t::text LIKE %s LIMIT 1'  # noqa: S608
        if product.rows(sql, f"%{SECRET}%", f"%{SECRET.encode().hex()}%"):
            found.append(name)
    data = product.stack.settings.data_dir
    for folder in ("logs", "temporal", "workbenches"):
        for file in (data / folder).rglob("*"):
            if file.is_file() and SECRET.encode() in file.read_bytes():
                found.append(str(file.relative_to(data)))
    return found
