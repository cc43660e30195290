"""The audit log: what its rows cost who acts, how many a sealer seals, and how long export and verification take."""

import asyncio
import sys
import time
from pathlib import Path

import psutil
import psycopg
from psycopg import Connection

from activities.sealing import Sealer
from activities.workbench.signing import ServiceKey
from benchmarks.measure import Goal
from benchmarks.servers import admin_key, serving
from models.store.connections import plain
from models.store.database import Database
from models.store.keys import DEFAULT_WORKSPACE
from worker.dev.stack import Stack

AT_ONCE = 10_000
COMMANDS = ("export", "verify")
LOOK_SECONDS = 0.05
MIB = 2**20
GOALS = (
    Goal("sealed_per_second", "higher", 20_000),
    Goal("export_seconds_per_million", "lower", 60),
    Goal("verify_seconds_per_million", "lower", 60),
    Goal("export_peak_mib", "lower", 150),
    Goal("export_api_grown_mib", "lower", 100),
    Goal("verify_peak_mib", "lower", 150),
)
"""The last three: memory does not grow with the log, whose export has some hundred MiB."""
_ACT = """
INSERT INTO event (workspace_id, type, subject_kind, subject_id, actor, correlation_id, data)
SELECT %s, 'mission.noted', 'mission', 'mission_' || n, 'olga', 'req_' || n, jsonb_build_object('detail', 'note ' || n)
FROM generate_series(1, %s) AS n
"""
_SINGLE = _ACT.replace("%s) AS n", "1) AS n")


async def run(quick: bool) -> dict[str, float]:
    """Measure; there is no other side to compare with, but for what an act's row costs."""
    rows = 100_000 if quick else 1_000_000
    async with serving("postgres", "temporal", "api") as stack:
        assert stack.settings.database_url is not None
        with psycopg.connect(plain(stack.settings.database_url.get_secret_value()), autocommit=True) as connection:
            found = {"rows": float(rows), **_cost(connection, 2_000)}
            for start in range(0, rows, AT_ONCE):
                connection.execute(_ACT, [DEFAULT_WORKSPACE, min(AT_ONCE, rows - start)])
            connection.execute("VACUUM ANALYZE audit")
        found |= await _seal(stack)
        export, public = stack.settings.data_dir / "log.jsonl", stack.settings.data_dir / "pub"
        public.write_text(ServiceKey.load_or_create(stack.settings.signing_key).public_openssh)
        address = ["--url", stack.settings.api_url, "--api-key", admin_key(stack.settings)]
        exported = await _command(["audit", "export", "-o", str(export), *address], stack.pid("api"))
        verified = await _command(["audit", "verify", str(export), "--key", str(public)])
        found |= {f"export_{name}": value for name, value in exported.items()}
        found["export_file_mib"] = export.stat().st_size / MIB
        found |= {f"verify_{name}": value for name, value in verified.items()}
        found["export_api_grown_mib"] = found["export_api_peak_mib"] - found["export_api_peak_mib_before"]
        return found | {f"{what}_seconds_per_million": found[f"{what}_seconds"] * 1e6 / rows for what in COMMANDS}


def _cost(connection: Connection, count: int) -> dict[str, float]:
    """Measure the CPU of single events, each a transaction, with and without the trigger, in turns."""
    seconds, backend = {"ENABLE": 0.0, "DISABLE": 0.0}, psutil.Process(connection.info.backend_pid)
    for how in ("DISABLE", "ENABLE") * 4:
        connection.execute(f"ALTER TABLE event {how} TRIGGER event_is_audited".encode())
        before = backend.cpu_times()
        for _ in range(count // 4):
            connection.execute(_SINGLE, [DEFAULT_WORKSPACE])
        after = backend.cpu_times()
        seconds[how] += after.user + after.system - before.user - before.system
    return {
        "event_cpu_ms": 1000 * seconds["DISABLE"] / count,
        "event_with_audit_cpu_ms": 1000 * seconds["ENABLE"] / count,
    }


async def _seal(stack: Stack) -> dict[str, float]:
    db, began = Database.from_settings(stack.settings), time.perf_counter()
    try:
        sealed = await Sealer(db, ServiceKey.load_or_create(stack.settings.signing_key)).seal()
    finally:
        await db.close()
    return {"sealed_per_second": sealed / (time.perf_counter() - began)}


async def _command(words: list[str], server: int | None = None) -> dict[str, float]:
    """Run a command of ours; its seconds, and how much memory it, and the server, came to use at most."""
    program, began = str(Path(sys.executable).with_name("mission-control")), time.perf_counter()
    process = await asyncio.create_subprocess_exec(program, *words, stdout=asyncio.subprocess.DEVNULL)
    watched = {"peak_mib": process.pid} | ({"api_peak_mib": server} if server else {})
    before = {f"{name}_before": _memory(pid) for name, pid in watched.items() if name == "api_peak_mib"}
    peaks = dict.fromkeys(watched, 0.0)
    while process.returncode is None:
        for name, pid in watched.items():
            peaks[name] = max(peaks[name], _memory(pid))
        await asyncio.sleep(LOOK_SECONDS)
    assert process.returncode == 0
    return {"seconds": time.perf_counter() - began, **before, **peaks}


def _memory(pid: int) -> float:
    try:
        return float(psutil.Process(pid).memory_info().rss / MIB)
    except psutil.NoSuchProcess:
        return 0.0
