"""What a machine without Docker can check of the image and the compose file."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.contracts.search_attributes import SearchAttribute
from worker.dev.programs import variables
from worker.dev.temporal import DYNAMIC_CONFIG

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.temporal.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "mission-control"}
STAYING = {name for name, service in SERVICES.items() if service["restart"] == "unless-stopped"}


def test_every_part_is_there() -> None:
    assert {"postgres", "temporal", "temporal-ui", "api", "worker"} == STAYING
    assert set(OURS) == {"migrate", "api", "worker"}


@pytest.mark.parametrize("name", SERVICES)
class TestService:
    def test_it_has_a_pinned_image_or_is_built_here(self, name: str) -> None:
        service = SERVICES[name]
        assert "build" in service or re.search(r":\d", service["image"])

    def test_what_stays_up_is_looked_after(self, name: str) -> None:
        assert (name in STAYING) == ("healthcheck" in SERVICES[name])

    def test_it_waits_for_what_exists_in_a_way_that_can_come_true(self, name: str) -> None:
        for other, how in SERVICES[name].get("depends_on", {}).items():
            wanted = "service_healthy" if other in STAYING else "service_completed_successfully"
            assert how == {"condition": wanted}

    def test_its_ports_are_on_loopback(self, name: str) -> None:
        assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))

    def test_secrets_come_from_the_env_file(self, name: str) -> None:
        for variable, value in SERVICES[name].get("environment", {}).items():
            if re.search("PASSWORD|PWD|DATABASE_URL", variable):
                assert re.search(r"\$\{[A-Z_]+_PASSWORD:\?", value)

    def test_mounted_files_are_in_the_repository(self, name: str) -> None:
        for mount in SERVICES[name].get("volumes", []):
            if mount.startswith("./"):
                assert (ROOT / mount.split(":")[0]).is_file()


@pytest.mark.parametrize("name", OURS)
def test_our_programs_are_given_only_settings_they_know(name: str) -> None:
    assert set(OURS[name]["environment"]) <= set(variables().values())


def test_every_secret_is_in_the_example() -> None:
    asked = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.temporal.yml").read_text()))
    offered = set(re.findall(r"^(\w+)=", (ROOT / "deploy/compose/env.example").read_text(), re.MULTILINE))
    assert asked == offered


def test_the_image_holds_every_package() -> None:
    copied = set(re.findall(r"^COPY ([\w/]+) ", (ROOT / "deploy/Dockerfile").read_text(), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= copied
    assert all((ROOT / source).exists() for source in copied)


def test_the_image_knows_what_it_was_built_from() -> None:
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    for name in ("MC_GIT_SHA", "MC_GIT_BRANCH"):
        assert f'{name}=""' in dockerfile, "an argument of the build"
        assert f"{name}=${name}" in dockerfile, "a setting of what runs"
        assert all(name in service["build"]["args"] for service in OURS.values())


def test_temporal_is_configured_as_on_one_machine() -> None:
    entries = yaml.safe_load((ROOT / "deploy/temporal/dynamic-config.yaml").read_text())
    told = {name: str(entry[0]["value"]).lower() for name, entry in entries.items()}
    assert told == DYNAMIC_CONFIG


def test_the_namespace_gets_our_search_attributes() -> None:
    script = (ROOT / "deploy/temporal/setup-namespace.sh").read_text()
    assert f"in {' '.join(SearchAttribute)};" in script


@pytest.mark.parametrize("script", [*ROOT.glob("deploy/*/*.sh"), ROOT / "deploy/setup.sh", ROOT / ".ci/run"])
def test_scripts_parse_and_may_be_run(script: Path) -> None:
    shell = "bash" if "bash" in script.read_text().splitlines()[0] else "sh"
    subprocess.run([shell, "-n", script], check=True)
    assert script.stat().st_mode & 0o111
