"""`make chaos`: random SIGKILLs over many missions at once, and nothing is lost, merged twice or left running.

`python -m tests.chaos [--seed N] [--kills N] [--missions N]`. The seed is printed first; the same seed kills the same
parts in the same order (when they die depends on the machine).
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

import structlog

from tests.fixtures.git_repos import Repo
from tests.fixtures.product import ENDED, Product, running

VICTIMS = ("worker", "worker", "worker", "api", "postgres", "temporal")
"""The worker holds the hands on the world, so it dies as often as all others together."""

REPOSITORIES = 5
PAUSE = (0.5, 3.0)
"""Seconds between a part's return and the next kill."""

DEADLINE = 900.0
log = structlog.get_logger()


async def chaos(product: Product, kills: int, missions: int, rng: random.Random) -> None:
    """Kill at random while missions run, then hold each of them to all that a kill must not change."""
    filed = await file_missions(product, missions)
    for number in range(kills):
        await asyncio.sleep(rng.uniform(*PAUSE))
        victim = rng.choice(VICTIMS)
        await product.stack.kill(victim)
        log.info("killed", number=number + 1, part=victim, open=count_open(product) if victim != "postgres" else None)
        await product.stack.start(victim)
        if number % 5 == 4 and count_open(product) < missions // 4:
            filed += await file_missions(product, missions // 4)
    await all_ended(product, filed)
    for mission, repo in filed:
        ended = await product.mission(mission)
        if ended["outcome"] != "merged":
            show(product, mission)
        assert (ended["status"], ended["outcome"]) == ("resolved", "merged"), (mission, ended["reason"])
        product.assert_unharmed(mission, repo)
    await product.no_strays()
    log.info("unharmed", missions=len(filed), kills=kills)


async def file_missions(product: Product, count: int) -> list[tuple[str, Repo]]:
    """File missions that change different files of a few shared repositories, so that they meet at the merge queue."""
    repos = [product.repo(_files(count)) for _ in range(min(REPOSITORIES, count))]
    filed = []
    for number in range(count):
        repo = repos[number % len(repos)]
        criteria = {"must_pass_tests": [f"calc::adds{number}"]}
        mission = await product.file(repo, patch={f"calc{number}.txt": "a + b\n"}, criteria=criteria)
        filed.append((mission, repo))
    return filed


def _files(count: int) -> dict[str, str]:
    """Make a repository where each mission has a bug of its own to mend."""
    cases = "".join(
        f"""if grep -q 'a + b' calc{n}.txt; then bad=; else bad='<failure message="wrong"/>'; fi
echo "<testcase classname='calc' name='adds{n}'>$bad</testcase>" >> /out/cases
"""
        for n in range(count)
    )
    check = f"""rm -f /out/cases
{cases}( echo '<testsuite>'; cat /out/cases; echo '</testsuite>' ) > /out/junit.xml
! grep -q failure /out/junit.xml
"""
    sources = {f"calc{n}.txt": "a - b\n" for n in range(count)}
    return sources | {"check.sh": check, ".mission-control.yaml": "test: sh check.sh\njunit: /out/junit.xml\n"}


def show(product: Product, mission: str) -> None:
    """Print what a mission that was harmed has left, with the last log."""
    for record in product.stages(mission):
        log.warning("stage", **{name: record[name] for name in ("stage", "round", "status", "attempt", "reason")})
    sql = "SELECT content FROM blob JOIN stage ON log_digest = blob.digest WHERE mission_id = %s ORDER BY ended_at"
    for row in product.rows(sql, mission)[-1:]:
        log.warning("last log", content=row["content"].decode(errors="replace")[-4000:])


def count_open(product: Product) -> int:
    """Count missions that have not ended."""
    sql = "SELECT count(*) AS open FROM mission WHERE status <> ALL(%s)"
    return int(product.rows(sql, list(ENDED))[0]["open"])


async def all_ended(product: Product, filed: list[tuple[str, Repo]]) -> None:
    """Wait for the end of every mission."""
    deadline = time.monotonic() + DEADLINE
    for mission, _ in filed:
        await product.ended(mission, max(deadline - time.monotonic(), 1))


async def main(arguments: argparse.Namespace) -> None:
    """Start the product on a folder of its own and let chaos at it."""
    log.info("chaos", seed=arguments.seed, kills=arguments.kills, missions=arguments.missions)
    with tempfile.TemporaryDirectory(prefix="mission-control-chaos-") as name:
        async with running(Path(name)) as product:
            await chaos(product, arguments.kills, arguments.missions, random.Random(arguments.seed))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--missions", type=int, default=20)
    try:
        asyncio.run(main(parser.parse_args()))
    except AssertionError as broken:
        log.error("harmed", why=str(broken))
        sys.exit(1)
