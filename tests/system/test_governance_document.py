"""Runs every command of `docs/governance.md`, in its order, and holds what it prints to what the document shows."""

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.fixtures.product import Product
from tests.fixtures.waiting import eventually

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "governance.md"
ANYTHING = "…"
PROGRAMS = Path(sys.executable).parent

pytestmark = pytest.mark.timeout(300)


def shown() -> list[tuple[str, list[str]]]:
    """Each command with the lines that are to follow it."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", DOCUMENT.read_text(), re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def pattern(lines: list[str]) -> str:
    """Match these lines, however wide their columns are; a line of dots stands for any number of lines."""
    return "".join(
        r"(?:.*\n)*?" if line.strip() == ANYTHING else re.escape(plain(line)).replace(ANYTHING, ".*?") + r"\n"
        for line in lines
    )


def plain(text: str) -> str:
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())


class Reader:
    """An admin of a new workspace, who follows the document."""

    def __init__(self, product: Product, folder: Path, workspace: str, secret: str) -> None:
        self.product, self.folder, self.workspace = product, folder, workspace
        self._secrets = {"admin": secret}

    async def ask(self, method: str, path: str, who: str = "admin", **body: Any) -> Any:
        headers = {"Authorization": f"Bearer {self._secrets[who]}"}
        answer = await self.product.api.request(method, path, headers=headers, json=body or None)
        assert answer.is_success, answer.text
        return answer.json()["data"]

    async def admit(self, name: str) -> None:
        """Give somebody a key, and make an operator of whoever is none."""
        made = await self.ask("POST", "/keys", principal=name, role="operator")
        self._secrets[name] = made["secret"]

    async def run(self, command: str) -> str:
        """Run a command as its comment says; all that it prints."""
        words, _, comment = command.partition("#")
        for name, path in (("KEY", "/keys"), ("DECISION", "/decisions?kind=governance")):
            if re.search(rf"\b{name}\b", words):
                items = (await self.ask("GET", path))["items"]
                found = next(i for i in items if i.get("principal") in (None, "olga") and not i.get("revoked_at"))
                words = re.sub(rf"\b{name}\b", found[f"{name.lower()}_id"], words)
        env = self.product.stack.env() | {"MC_API_KEY": self._secrets[comment.strip().removeprefix("as ") or "admin"]}
        env["PATH"] = f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"
        process = await asyncio.create_subprocess_shell(
            words, cwd=self.folder, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        printed, _ = await process.communicate()
        return printed.decode()

    async def asks(self) -> None:
        """Let olga file a mission for production, and wait for its question."""
        repo = self.product.repo()
        url = str(repo.path)
        registered = await self.ask("POST", "/repositories", "olga", url=url, target_branch="main", env="prod")
        mission = await self.ask(
            "POST",
            "/missions",
            "olga",
            subsystem_id="calc",
            severity="medium",
            repository=registered["repository_id"],
            symptoms=[{"description": "sums are wrong"}],
            acceptance_criteria={"must_pass_tests": ["calc::adds"], "observation_window_minutes": 0.01},
            patch_candidates=[{"diff": repo.diff_of({"calc.txt": "a + b\n"}).decode()}],
        )
        await self.ask("POST", f"/missions/{mission['mission_id']}/execute", "olga", mission_type="coding")

        async def asked() -> Any:
            return (await self.ask("GET", "/decisions?kind=governance&status=pending"))["items"]

        await eventually(asked, 60)

    async def sealed(self) -> None:
        """Wait until the newest act has its proof."""
        [newest] = (await self.ask("GET", "/audit?limit=1"))["items"]
        headers = {"Authorization": f"Bearer {self._secrets['admin']}"}

        async def proved() -> bool:
            answer: httpx2.Response = await self.product.api.get(f"/audit/{newest['id']}/proof", headers=headers)
            return answer.is_success

        await eventually(proved, 30)


async def test_each_command_prints_what_is_shown(product: Product, tmp_path: Path) -> None:
    made = (await product.api.post("/workspaces", json={"slug": "docs", "name": "Docs"})).json()["data"]
    reader = Reader(product, tmp_path, made["workspace_id"], made["secret"])
    commands = shown()
    assert len(commands) > 30
    for command, lines in commands:
        if command == "mission-control decision list":
            for name in ("olga", "maria", "paul"):
                await reader.admit(name)
            await reader.asks()
        if command.startswith("mission-control audit export"):
            await reader.sealed()
        printed = plain(await reader.run(command)) + "\n"
        wanted = pattern(lines) or r"\s*"
        assert re.fullmatch(wanted, printed), f"$ {command}\n{printed}\nis not\n" + "\n".join(lines)
