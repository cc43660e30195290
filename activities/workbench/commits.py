"""Signed commits that come out the same every time they are made, and finding them again by their trailers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from activities.workbench.mirrors import Mirror
from activities.workbench.signing import ServiceKey

COMMITTER = ("Mission Control", "mission-control@localhost")
_PERSON = re.compile(r"\s*(?P<name>[^<>]*?)\s*(?:<(?P<email>[^<>\s]*)>)?\s*")


@dataclass(frozen=True)
class Mission:
    """Whose commit it is. Mission ids are unique within a workspace, and two may share a repository: both are named."""

    workspace_id: str
    mission_id: str

    def trailers(self, key: str = "Mission-Id") -> dict[str, str]:
        """The trailers that tell this mission's commit; `key` says what the commit is to the mission."""
        return {key: self.mission_id, "Mission-Workspace": self.workspace_id}


@dataclass(frozen=True)
class Draft:
    """A commit to be made: same draft and key, same SHA. `author` is `Name` or `Name <email>`, else ours."""

    tree: str
    parents: tuple[str, ...]
    message: str
    trailers: Mapping[str, str]
    date: datetime
    author: str | None = None

    @property
    def text(self) -> str:
        """The whole message; our trailers are its last paragraph, the only one git reads as trailers."""
        body = self.message.replace("\0", "").strip() or "Change by Mission Control"
        return f"{body}\n\n" + "".join(f"{name}: {value}\n" for name, value in self.trailers.items())


async def commit(mirror: Mirror, draft: Draft, key: ServiceKey | None) -> str:
    """Write the commit, signed if there is a key; returns its SHA."""
    parents = [part for parent in draft.parents for part in ("-p", parent)]
    made = await mirror.make(
        "commit-tree",
        *(("-S",) if key else ()),
        *parents,
        *("-F", "-", draft.tree),
        stdin=draft.text.encode("utf-8", "replace"),
        config={"user.signingKey": str(key.path)} if key else {},
        env=_people(draft),
    )
    return made.text


async def find_signed(
    mirror: Mirror, since: str, head: str, trailers: Mapping[str, str], key: ServiceKey, *, merges: bool
) -> str | None:
    """Find our commit with these trailers among those in `head` that are not in `since`; the oldest, if several.

    Anybody can write a trailer, so only a commit with the service's signature counts.
    """
    name, value = next(iter(trailers.items()))
    shape = "%H%n%(trailers:only,unfold)"
    kind = "--merges" if merges else "--no-merges"
    grep = ("--fixed-strings", f"--grep={name}: {value}")
    listed = await mirror.git("log", "-z", kind, *grep, f"--format={shape}", "--reverse", f"{since}..{head}")
    for record in listed.out.decode("utf-8", "replace").split("\0"):
        sha, _, found = record.strip().partition("\n")
        lines = set(found.splitlines())
        if sha and all(f"{n}: {v}" in lines for n, v in trailers.items()) and await is_ours(mirror, sha, key):
            return sha
    return None


async def is_ours(mirror: Mirror, sha: str, key: ServiceKey) -> bool:
    """Whether the service signed this commit, with the key it has now or one it had before."""
    config = {"gpg.ssh.allowedSignersFile": str(key.allowed_signers)}
    return (await mirror.git("verify-commit", sha, config=config, ok=(0, 1))).code == 0


def _people(draft: Draft) -> dict[str, str]:
    when = f"@{int(draft.date.timestamp())} +0000"
    author = _person(draft.author)
    return {
        "GIT_AUTHOR_NAME": author[0],
        "GIT_AUTHOR_EMAIL": author[1],
        "GIT_AUTHOR_DATE": when,
        "GIT_COMMITTER_NAME": COMMITTER[0],
        "GIT_COMMITTER_EMAIL": COMMITTER[1],
        "GIT_COMMITTER_DATE": when,
    }


def _person(author: str | None) -> tuple[str, str]:
    """Split an author; what git would refuse as a name becomes the service itself."""
    match = _PERSON.fullmatch(re.sub(r"[\x00-\x1f\x7f]", " ", author or ""))
    if match is None or not re.search(r"\w", match["name"]):
        return COMMITTER
    return match["name"], match["email"] or COMMITTER[1]
