"""No port that set-ups may connect to is one on which a server of ours listens."""

import pytest

from models.domain.errors import Misconfigured
from models.settings import Settings
from worker.own_ports import require_apart

HERE = {
    "DATABASE_URL": "postgresql+psycopg://owner:pw@127.0.0.1/db",
    "DATABASE_APP_URL": "postgresql://app@localhost:5433/db",
    "TEMPORAL_ADDRESS": "127.0.0.1:7233",
    "temporal_ui_url": "http://localhost:8233",
    "api_port": 8000,
    "metrics_port": 9464,
}


@pytest.mark.parametrize(
    ("port", "name"),
    [(5432, "PostgreSQL"), (5433, "PostgreSQL"), (7233, "Temporal"), (8233, "UI"), (8000, "API"), (9464, "metrics")],
)
def test_a_port_of_ours_is_refused_by_name(port: int, name: str) -> None:
    with pytest.raises(Misconfigured, match=f"{name} on {port}"):
        require_apart(Settings.model_validate(HERE), {80, 443, port})


def test_others_are_not() -> None:
    require_apart(Settings.model_validate(HERE), {80, 443, 3141})


def test_servers_elsewhere_are_not_ours() -> None:
    away = {"TEMPORAL_ADDRESS": "ours.example:443", "DATABASE_URL": "postgresql://db.example:80/x"}
    require_apart(Settings.model_validate(away), {80, 443})


def test_the_setting_takes_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MC_SETUP_PORTS", "8080, 9000")
    assert Settings().setup_ports == (8080, 9000)
