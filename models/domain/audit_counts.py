"""How many rows each workspace has in the audit log: a tree beside the log's own, whose root is signed with each
checkpoint. An export that withholds the newest rows of its workspace has fewer than its count says.

A workspace's leaf commits to its name, its number of rows and a salt that no other workspace is shown: the proof of one
count tells nothing of the others but how many there are.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.domain.audit import raw
from models.domain.checkpoints import Checkpoint, decoded
from models.domain.merkle import inclusion_spans, leaf_hash, root_from, root_over

_WORD = "workspaces"


@dataclass(frozen=True)
class Counts:
    """What a checkpoint says of all workspaces that have rows: how many there are, and the root over their counts."""

    workspaces: int
    root: bytes

    @property
    def line(self) -> str:
        """The extension line of the checkpoint."""
        return f"{_WORD} {self.workspaces} {base64.b64encode(self.root).decode()}"


def counts_over(leaves: Sequence[bytes]) -> Counts:
    """Sum up the counts of all workspaces."""
    return Counts(len(leaves), root_over(leaves))


def counts_of(checkpoint: Checkpoint) -> Counts | None:
    """Read what a checkpoint says; None of one that was signed before there were counts.

    Raises:
        ValueError: it says something else.
    """
    if not checkpoint.extensions:
        return None
    [line] = checkpoint.extensions
    word, number, root = line.split(" ")
    if word != _WORD:
        raise ValueError(f"no line of a checkpoint begins with {word!r}")
    return Counts(int(number), decoded(root))


def count_leaf(workspace_id: str, rows: int, salt: bytes) -> bytes:
    """Hash what is signed of one workspace."""
    return leaf_hash(json.dumps([workspace_id, rows, salt.hex()], ensure_ascii=False).encode())


def count_proof(leaves: Sequence[bytes], index: int) -> list[str]:
    """Prove one of the counts to who knows the root over all."""
    return [root_over(leaves[start:end]).hex() for start, end in inclusion_spans(index, len(leaves))]


def proves_count(counts: Counts, workspace_id: str, entry: dict[str, Any]) -> bool:
    """Whether the line of an export proves its number of rows."""
    leaf = count_leaf(workspace_id, int(entry["rows"]), raw(entry["salt"]))
    hashes = [raw(found) for found in entry["hashes"]]
    try:
        return root_from(leaf, int(entry["index"]), counts.workspaces, hashes) == counts.root
    except ValueError:  # no tree of so many workspaces has such a proof
        return False
