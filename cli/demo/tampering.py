"""The audit log, exported and verified; then one row is changed in SQL, and the verification names it."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg

from cli.client import Api
from cli.demo.scene import House
from cli.errors import Refused
from models.domain.errors import Unavailable
from models.store.connections import plain
from worker.dev.programs import environment

EXPORT = "audit export --output log.jsonl --force"
VERIFY = "audit verify log.jsonl --key keys.pub"
TRIGGERS_OFF = "SET session_replication_role = replica"
REWRITE = "UPDATE audit SET actor = '{}' WHERE id = {}"
LIAR = "olga"
SEALING_SECONDS = 20.0

Json = dict[str, Any]


def show(house: House, admin: Api, key_file: Path, subject: str) -> bool:
    """Verify the log, rewrite who did the last act upon `subject`, verify again; whether only that was found wrong."""
    house.tell("\nthe audit log, before and after one row is changed by hand", "bold")
    folder = house.settings.data_dir / "audit"
    folder.mkdir(mode=0o700, exist_ok=True)
    _until_sealed(admin)
    keys = [key["public_key"] for key in admin.get("/status")["signing_keys"]]
    (folder / "keys.pub").write_text("\n".join(keys) + "\n", encoding="utf-8")
    [row] = admin.rows("/audit", 1, subject=subject)
    was_good = _verified(house, folder, key_file)
    _rewrite(house, row)
    return was_good and not _verified(house, folder, key_file)


def _until_sealed(admin: Api) -> None:
    """Wait until the newest act has its place in a signed tree, which a worker gives every second."""
    [newest] = admin.rows("/audit", 1)
    deadline = time.monotonic() + SEALING_SECONDS
    while True:
        try:
            admin.get(f"/audit/{newest['id']}/proof")
            return
        except Refused as refusal:
            if refusal.code != "audit_not_sealed":
                raise
        if time.monotonic() > deadline:
            message = f"after {SEALING_SECONDS:g} s row {newest['id']} is not sealed: the worker's log says why"
            raise Unavailable("audit_not_sealed", message)
        time.sleep(0.2)


def _verified(house: House, folder: Path, key_file: Path) -> bool:
    """Export the log and verify it as anybody would, by the commands; whether it was found to be good."""
    return all([_command(house, folder, key_file, words) for words in (EXPORT, VERIFY)])


def _command(house: House, folder: Path, key_file: Path, words: str) -> bool:
    house.tell(f"$ mission-control {words}", "bold")
    env = environment(house.settings) | {"MC_API_KEY_FILE": str(key_file)}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "cli", *words.split()],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if printed := (done.stdout + done.stderr).rstrip():
        house.answers(printed, refused=done.returncode != 0)
    return done.returncode == 0


def _rewrite(house: House, row: Json) -> None:
    """Do what only a superuser of the database can, who switches the triggers off: say that somebody else did it."""
    house.tell(f"row {row['id']} says that {row['actor']} did {row['action']}; a superuser changes that:")
    url = house.settings.database_url.get_secret_value() if house.settings.database_url else ""
    with psycopg.connect(plain(url)) as connection:
        for statement in (TRIGGERS_OFF, REWRITE.format(LIAR, row["id"])):
            house.tell(f"postgres=# {statement};", "bold")
            done = connection.execute(statement.encode())
            house.answers(done.statusmessage or "", refused=True)
