"""A repository whose tests mean harm, through the whole product: it finds nothing, harms nothing, and is told apart."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from activities.workbench import port_guard
from tests.fixtures.git_repos import Repo
from tests.fixtures.product import CHECK, FILES, Product

pytestmark = pytest.mark.timeout(300)

BOMB = """\
cat > /out/junit.xml <<X
<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>
<testsuite><testcase classname="calc" name="adds">&c;</testcase></testsuite>
X
"""
STOPPED = {
    "hangs": ("trap '' TERM; while :; do sleep 60 & wait; done", "stopped: it ran longer than 8 s"),
    "forks for ever": (
        "bomb() { bomb & bomb & wait; }; bomb 2>/dev/null",
        "stopped: it started more than 256 processes",
    ),
    "fills the disk": ("cat /dev/zero > fill; sleep 60", "stopped: it wrote more than 1073741824 bytes"),
    "prints a gigabyte": ("yes | head -c 1000000000", "stopped: it printed more than 67108864 bytes"),
    "sends an XML bomb": (BOMB, "'junit.xml' was refused: it declares a DTD or entities"),
    "kills its parent, and all it can": (
        "(kill -9 $PPID; kill -9 1; kill -9 -1) 2>/dev/null; sleep 60",
        "no test was collected at the patch: the command ended with code 137",
    ),
}
"""What it does, and what the evidence must say it was stopped for."""

LONG = f"61.{os.getpid()}"
"""Seconds that nobody else on this machine sleeps."""

STAYS = f"""\
(setsid sh -c 'trap "" TERM HUP; while :; do sleep {LONG} & wait; done' >/dev/null 2>&1 &)
echo 'test: "true"' > .mission-control.yaml
"""


def hostile(product: Product, line: str, timeout: str = "60s") -> Repo:
    """Make a repository whose test command does that, only where the patch is applied."""
    check = f"grep -q 'a + b' calc.txt || exec sh sound.sh\n{line}\n"
    config = f"{FILES['.mission-control.yaml']}timeout: {timeout}\n"
    return product.repo(FILES | {"check.sh": check, "sound.sh": CHECK, ".mission-control.yaml": config})


def left_nothing(product: Product, mission: str) -> None:
    """Neither process, worktree nor scratch outlives the mission, and the product's own parts live."""
    assert not (product.stack.settings.data_dir / "workbenches/default" / mission).exists()
    assert product.strays(mission) == []
    assert [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", LONG]] == []
    assert all(product.stack.pid(part) for part in ("postgres", "temporal", "worker", "api"))


async def test_what_uses_everything_up_is_stopped_and_named_while_others_go_on(product: Product) -> None:
    before = {part: product.stack.pid(part) for part in ("postgres", "temporal", "worker", "api")}
    sound = product.repo()
    limits = dict.fromkeys(STOPPED, "100s") | {"hangs": "8s"}  # each of the others is to meet its own limit first
    missions = {name: await product.file(hostile(product, line, limits[name])) for name, (line, _) in STOPPED.items()}
    other = await product.file(sound)
    ends: dict[str, dict[str, Any]] = {}
    for name, mission in missions.items():
        ends[name] = await product.ended(mission, 200)
    assert (await product.ended(other))["outcome"] == "merged"
    product.assert_unharmed(other, sound)
    for name, ended in ends.items():
        assert ended["outcome"] == "failed", (name, ended)
        [record] = [record for record in product.stages(missions[name]) if record["status"] == "failed"]
        assert (record["stage"], record["attempt"]) == ("run_tests", 1), (name, record)
        assert STOPPED[name][1] in record["reason"], (name, record["reason"])
        assert record["reason"] == ended["reason"]
        left_nothing(product, missions[name])
    assert {part: product.stack.pid(part) for part in before} == before


async def test_what_wants_to_stay_is_gone_and_a_changed_command_changes_nothing(product: Product) -> None:
    repo = hostile(product, f"{STAYS}. ./sound.sh")
    told = "the run at the patch left 2 process(es) behind, which were ended"
    mission = await product.file(repo)
    ended = await product.ended(mission)
    assert ended["outcome"] == "merged", ended["reason"]
    product.assert_unharmed(mission, repo)
    left_nothing(product, mission)
    assert repo.show("main", ".mission-control.yaml").startswith(b"test: sh check.sh")
    [record] = [record for record in product.stages(mission) if record["stage"] == "run_tests"]
    assert [note for note in record["result"]["notes"] if "left" in note] == [told]
    log = (await product.api.get(f"/missions/{mission}/stages/4/log")).text
    assert log.count("process(es) behind, which were ended") == 1


@dataclass(frozen=True)
class Search:
    """What a hostile command looks for: files with secrets, folders of others, and servers."""

    secrets: tuple[Path, ...]
    folders: tuple[Path, ...]
    ports: tuple[int, ...]

    def script(self, away: tuple[str, int] = ("127.0.0.1", 1)) -> str:
        """Write the search as a shell script that prints all it finds, and at each of its ends that it got there."""
        addresses = [*(("127.0.0.1", port) for port in self.ports), away]
        return f"""\
env; cat {" ".join(map(str, self.secrets))} /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'
for folder in {" ".join(map(str, self.folders))}; do [ ! -e $folder ] || echo FOUND-FOLDER; done
echo LOOKED-FOR-FOLDERS
python3 - <<'P'
import socket
for address in {addresses}:
    try:
        socket.create_connection(address, 2)
    except OSError:
        continue
    print("FOUND-PORT", address[1])
print("LOOKED-FOR-PORTS")
P
"""

    def on_the_host(self) -> str:
        """Search without any isolation."""
        return subprocess.run(("sh", "-c", self.script()), stdout=subprocess.PIPE, text=True, check=True).stdout

    def finds(self, product: Product) -> list[str]:
        """List what must not be found: contents of the secrets, folders, ports, and where the product lives."""
        contents = [line for file in self.secrets for line in file.read_text().splitlines() if len(line) > 20]
        marks = [line for line in contents if "OPENSSH" not in line]
        return [*marks, "FOUND-FOLDER", *(f"FOUND-PORT {port}" for port in self.ports), str(product.root)]


def search(product: Product, other: str, held: Repo) -> Search:
    """Look for all that the product and another mission have on this machine."""
    settings = product.stack.settings
    assert settings.postgres_port
    temporal = int(str(settings.temporal_address).rsplit(":", 1)[1])
    return Search(
        (settings.key_file, settings.signing_key, settings.data_dir / "postgres.password"),
        (settings.data_dir / "workbenches" / "default" / other, held.path),
        (settings.postgres_port, settings.api_port, temporal),
    )


async def test_what_looks_for_secrets_and_servers_finds_none(product: Product) -> None:
    held = product.repo()
    other = await product.file(held, requires_governance_approval=True)
    await product.pending_decision(other)
    looks = search(product, other, held)
    seen = looks.on_the_host()
    assert [hit for hit in looks.finds(product) if hit not in seen] == [], "the search itself finds nothing"
    mission = await product.file(hostile(product, f"{looks.script(('1.1.1.1', 53))}. ./sound.sh"))
    ended = await product.ended(mission)
    log = (await product.api.get(f"/missions/{mission}/stages/4/log")).text
    [record] = [record for record in product.stages(mission) if record["stage"] == "run_tests"]
    if record["result"]["isolation"] == "none":
        pytest.skip("this machine isolates nothing; the evidence says so")
    assert ended["outcome"] == "merged", (ended["reason"], log)
    assert "LOOKED-FOR-FOLDERS" in log
    assert "LOOKED-FOR-PORTS" in log
    assert [hit for hit in (*looks.finds(product), "FOUND-PORT") if hit in log] == []
    cancelled = await product.api.post(f"/missions/{other}/cancel", json={})
    assert cancelled.status_code == 200, cancelled.text
    await product.ended(other)
    left_nothing(product, mission)


REACH = """\
import socket, sys
for port in sys.argv[1:]:
    try:
        socket.create_connection(("127.0.0.1", int(port)), 2)
        print("reached", port)
    except OSError:
        print("not reached", port)
"""


@pytest.mark.skipif(not port_guard.is_supported(), reason="this kernel cannot tell ports")
async def test_a_set_up_reaches_no_server_of_the_product(product: Product) -> None:
    settings = product.stack.settings
    urls = (f"//{settings.temporal_address}", settings.temporal_ui_url, settings.api_url, product.url)
    ports = [str(urlsplit(url).port) for url in urls]
    config = f"setup: python3 reach.py {' '.join(ports)}\n{FILES['.mission-control.yaml']}"
    mission = await product.file(product.repo(FILES | {"reach.py": REACH, ".mission-control.yaml": config}))
    ended = await product.ended(mission)
    assert ended["outcome"] == "merged", ended["reason"]
    told = (await product.api.get(f"/missions/{mission}/stages/run_tests/log")).text
    assert [f"not reached {port}" in told for port in ports] == [True] * 4, told
