"""A repository whose tests mean harm, through the whole product: it finds nothing, harms nothing, and is told apart."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fixtures.git_repos import Repo
from tests.fixtures.product import CHECK, FILES, Product, running

pytestmark = pytest.mark.timeout(300)

BOMB = """\
cat > /out/junit.xml <<X
<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>
<testsuite><testcase classname="calc" name="adds">&c;</testcase></testsuite>
X
"""
STOPPED = {
    "hangs": ("trap '' TERM; while :; do sleep 60 & wait; done", "longer than"),
    "forks for ever": ("bomb() { bomb & bomb & wait; }; bomb 2>/dev/null", "processes"),
    "fills the disk": ("cat /dev/zero > fill; sleep 60", "wrote more than"),
    "prints a gigabyte": ("yes | head -c 1000000000", "printed more than"),
    "sends an XML bomb": (BOMB, "junit"),
    "kills its parent, and all it can": ("(kill -9 $PPID; kill -9 1; kill -9 -1) 2>/dev/null; sleep 60", "the patch"),
}
"""What it does, and the word for it that the evidence must hold."""

STAYS = """\
(setsid sh -c 'trap "" TERM HUP; while :; do sleep 61 & wait; done' >/dev/null 2>&1 &)
echo 'test: "true"' > .mission-control.yaml
"""


@pytest.fixture(scope="module")
async def product(server_dir: Path) -> AsyncIterator[Product]:
    """The product, for the tests of this file."""
    root = server_dir / "hostile"
    root.mkdir()
    async with running(root) as product:
        yield product


def hostile(product: Product, line: str, timeout: str = "8s") -> Repo:
    """Make a repository whose test command does that, only where the patch is applied."""
    check = f"grep -q 'a + b' calc.txt || exec sh sound.sh\n{line}\n"
    config = f"{FILES['.mission-control.yaml']}timeout: {timeout}\n"
    return product.repo(FILES | {"check.sh": check, "sound.sh": CHECK, ".mission-control.yaml": config})


def left_nothing(product: Product, mission: str) -> None:
    """Neither process, worktree nor scratch outlives the mission, and the product's own parts live."""
    assert not (product.stack.settings.data_dir / "workbenches/default" / mission).exists()
    assert product.strays(mission) == []
    assert [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "61"]] == []
    assert all(product.stack.pid(part) for part in ("postgres", "temporal", "worker", "api"))


async def test_what_uses_everything_up_is_stopped_and_named_while_others_go_on(product: Product) -> None:
    before = {part: product.stack.pid(part) for part in ("postgres", "temporal", "worker", "api")}
    sound = product.repo()
    missions = {name: await product.file(hostile(product, line)) for name, (line, _) in STOPPED.items()}
    other = await product.file(sound)
    ends: dict[str, dict[str, Any]] = {}
    for name, mission in missions.items():
        ends[name] = await product.ended(mission, 120)
    assert (await product.ended(other))["outcome"] == "merged"
    product.assert_unharmed(other, sound)
    for name, ended in ends.items():
        assert ended["outcome"] == "failed", (name, ended)
        assert STOPPED[name][1] in ended["reason"].lower(), (name, ended["reason"])
        left_nothing(product, missions[name])
    assert {part: product.stack.pid(part) for part in before} == before


async def test_what_wants_to_stay_is_gone_and_a_changed_command_changes_nothing(product: Product) -> None:
    repo = hostile(product, f"{STAYS}. ./sound.sh")
    mission = await product.file(repo)
    ended = await product.ended(mission)
    assert ended["outcome"] == "merged", ended["reason"]
    product.assert_unharmed(mission, repo)
    left_nothing(product, mission)
    assert repo.show("main", ".mission-control.yaml").startswith(b"test: sh check.sh")


async def test_what_looks_for_secrets_and_servers_finds_none(product: Product) -> None:
    settings = product.stack.settings
    secrets = [settings.key_file.read_text().strip(), settings.signing_key.read_text().splitlines()[1]]
    places = [settings.key_file, settings.signing_key, settings.data_dir / "postgres.password"]
    ports = [settings.postgres_port, settings.api_port, int(str(settings.temporal_address).rsplit(":", 1)[1])]
    held = product.repo()
    other = await product.file(held, requires_governance_approval=True)
    await product.pending_decision(other)
    looks = f"""\
env; cat {" ".join(map(str, places))} /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'
ls {settings.data_dir}/workbenches/default/{other} {held.path} 2>/dev/null && echo FOUND-WORKTREE
python3 - <<'P'
import socket
for address in {[*(("127.0.0.1", port) for port in ports), ("1.1.1.1", 53)]}:
    try:
        socket.create_connection(address, 2)
    except OSError:
        continue
    print("FOUND-PORT", address)
P
. ./sound.sh
"""
    mission = await product.file(hostile(product, looks, "60s"))
    ended = await product.ended(mission)
    log = (await product.api.get(f"/missions/{mission}/stages/4/log")).text
    kind = product.rows("SELECT result FROM stage WHERE mission_id = %s AND stage = 'run_tests'", mission)[0]["result"]
    if "none" in json.dumps(kind.get("isolation", "")):
        pytest.skip("this machine isolates nothing; the evidence says so")
    assert ended["outcome"] == "merged", (ended["reason"], log)
    assert "FOUND" not in log
    assert not [secret for secret in secrets if secret in log]
    assert str(product.root) not in log
    cancelled = await product.api.post(f"/missions/{other}/cancel", json={})
    assert cancelled.status_code < 300, cancelled.text
    await asyncio.gather(product.ended(other))
    left_nothing(product, mission)
