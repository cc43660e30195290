"""What a finished mission can prove, checked from outside: from the API's answer, the repository and a public key."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from activities.workbench.signing import verify
from cli.client import Api
from cli.demo.world import BRANCH, git
from models.domain.canonical import digest_of, sha256_digest
from models.store.stages import signed_content

Json = dict[str, Any]


@dataclass(frozen=True)
class Proof:
    """The merge as git shows it, what git says of its signature, and how much of the evidence holds."""

    commit: str
    signature: str
    records: str
    stored: str


def prove(api: Api, repository: Path, allowed_signers: Path, workspace_id: str, mission_id: str) -> Proof:
    """Check the merge commit, every stage record, and everything that is stored for a mission."""
    evidence = api.get(f"/missions/{mission_id}/evidence")
    key = allowed_signers.read_text(encoding="utf-8").split('namespaces="git" ')[-1].strip()
    stages = evidence["stages"]
    identity = {"workspace_id": workspace_id, "mission_id": mission_id}
    verdict = git(repository, "-c", f"gpg.ssh.allowedSignersFile={allowed_signers}", "verify-commit", BRANCH)
    return Proof(
        commit=git(repository, "log", "-1", "--format=%h %s", BRANCH),
        signature=verdict,
        records=_score([_holds(stage | identity, key) for stage in stages]),
        stored=_score([sha256_digest(api.content(item["uri"])) == item["digest"] for item in evidence["evidence"]]),
    )


def _score(held: list[bool]) -> str:
    return f"{sum(held)} of {len(held)}"


def _holds(record: Json, key: str) -> bool:
    """Whether a record's content has its digest, and the digest its signature."""
    times = {name: datetime.fromisoformat(record[name]) for name in ("started_at", "ended_at")}
    digest = digest_of(signed_content(record | times))
    return digest == record["digest"] and verify(key, digest.encode(), record["signature"])
