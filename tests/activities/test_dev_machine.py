"""Ports, files, the lock on the data folder, and what `doctor` says of them."""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.domain.errors import Conflict
from models.settings import Settings
from tests.fixtures.servers import PostgresServer, TemporalServer
from worker.dev import doctor, ports
from worker.dev.files import MAX_BYTES, cap_logs
from worker.dev.ports import USUAL, choose_port, free_port, is_free
from worker.dev.programs import environment
from worker.dev.state import Addresses, ProcessRecord, UpState, only_one, read_state, write_state


def given(**values: object) -> Settings:
    return Settings.model_construct(_fields_set=set(), **Settings().model_dump()).model_copy(update=values)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


class TestPorts:
    def test_one_that_was_asked_for_and_is_taken_is_an_error_that_names_the_holder(self, taken: int) -> None:
        with pytest.raises(Conflict, match=rf"{taken} \(MC_API_PORT\) is taken by process {os.getpid()} "):
            choose_port(given(api_port=taken), "api_port", print)

    def test_a_usual_one_that_is_taken_is_replaced_and_it_is_said(
        self, taken: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(USUAL, "api_port", taken)
        said: list[str] = []
        port = choose_port(given(), "api_port", said.append)
        assert is_free(port)
        assert said[0].startswith(f"port {taken} is taken by process {os.getpid()} ")
        assert said[0].endswith(f"using {port}")

    def test_zero_means_any(self) -> None:
        assert is_free(choose_port(given(api_port=0), "api_port", print))

    def test_a_free_one_is_taken_as_asked(self) -> None:
        port = free_port()
        assert choose_port(given(api_port=port), "api_port", print) == port

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing marks a port")
    def test_one_that_another_start_chose_is_not_chosen_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        port = free_port()
        assert is_free(port), "its server does not listen yet"
        monkeypatch.setitem(USUAL, "api_port", port)
        assert choose_port(given(), "api_port", print) != port
        monkeypatch.setattr(ports, "CANDIDATES", range(port, port + 10))
        assert free_port() != port


class TestFiles:
    def test_a_log_over_the_limit_is_cut_and_its_writer_goes_on(self, tmp_path: Path) -> None:
        log = tmp_path / "temporal.log"
        with log.open("ab") as writer:
            writer.truncate(MAX_BYTES + 1)
            cap_logs(tmp_path)
            writer.write(b"next\n")
        assert log.read_bytes() == b"next\n"
        assert (tmp_path / "temporal.log.1").stat().st_size == MAX_BYTES + 1

    def test_a_data_folder_has_one_owner_at_a_time(self, tmp_path: Path) -> None:
        with only_one(tmp_path / "data"), pytest.raises(Conflict, match="already runs"), only_one(tmp_path / "data"):
            pass
        with only_one(tmp_path / "data"):
            pass

    def test_while_one_takes_over_from_a_dead_one_the_dead_is_not_named(self, tmp_path: Path) -> None:
        dead = ProcessRecord.of_self().model_copy(update={"started_at": 1.0})
        with only_one(tmp_path):
            write_state(tmp_path, UpState(up=dead, addresses=Addresses(api_url="http://127.0.0.1:1")))
            with pytest.raises(Conflict, match=r"\(another process, which is just starting\)"), only_one(tmp_path):
                pass
            write_state(tmp_path, UpState(up=ProcessRecord.of_self()))
            with pytest.raises(Conflict, match=rf"\(process {os.getpid()}\)"), only_one(tmp_path):
                pass

    def test_an_unreadable_state_is_no_state(self, tmp_path: Path) -> None:
        (tmp_path / "up.json").write_text("{half")
        assert read_state(tmp_path) is None


class TestEnvironment:
    def test_a_child_reads_back_what_was_set(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = given(data_dir=tmp_path, repository_roots=(tmp_path, Path("/srv")), temporal_address="127.0.0.1:1")
        for name, value in environment(settings).items():
            monkeypatch.setenv(name, value)
        read = Settings()
        assert (read.data_dir, read.repository_roots, read.temporal_address) == (
            tmp_path,
            (tmp_path, Path("/srv")),
            "127.0.0.1:1",
        )

    def test_a_setting_that_was_taken_away_does_not_come_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DATABASE_URL", "postgresql://elsewhere/x")
        assert "DATABASE_URL" not in environment(Settings().model_copy(update={"database_url": None}))


async def found(settings: Settings) -> dict[str, doctor.Check]:
    return {check.name: check for check in await doctor.check(settings)}


class TestDoctor:
    async def test_nothing_running_is_no_fault(self, tmp_path: Path) -> None:
        checks = await found(given(data_dir=tmp_path, database_url=None, temporal_address=None))
        assert [name for name, check in checks.items() if not check.ok] == []
        assert checks["postgres"].detail == doctor.NOT_RUNNING

    async def test_servers_are_used_and_an_old_schema_is_named(
        self, tmp_path: Path, postgres_server: PostgresServer, temporal_server: TemporalServer
    ) -> None:
        url = postgres_server.create_database()
        env = {"DATABASE_URL": url, "TEMPORAL_ADDRESS": temporal_server.address}
        checks = await found(Settings.model_validate({**env, "data_dir": tmp_path}))
        assert (checks["postgres"].ok, checks["temporal"].ok) == (True, True)
        assert checks["migrations"].mend == "run `mission-control migrate`"
        assert checks["repositories"].ok
        assert url.split("@")[0] not in repr(checks)

    async def test_a_port_that_a_killed_up_left_is_no_fault(self, tmp_path: Path, taken: int) -> None:
        settings = Settings.model_validate({"data_dir": tmp_path, "metrics_port": taken})
        name, dead = f"port {taken}", ProcessRecord.of_self().model_copy(update={"started_at": 1.0})
        assert not (await found(settings))[name].ok
        write_state(tmp_path, UpState(up=dead, children={"worker": ProcessRecord.of_self()}))
        check = (await found(settings))[name]
        assert check.ok
        assert check.detail.endswith("left by an earlier `up`; the next one ends it")

    async def test_what_does_not_answer_is_named_with_a_way_to_mend_it(self, tmp_path: Path) -> None:
        nobody = f"127.0.0.1:{free_port()}"
        env = {"DATABASE_URL": f"postgresql://user:hidden@{nobody}/x", "TEMPORAL_ADDRESS": nobody}
        checks = await found(Settings.model_validate({**env, "data_dir": tmp_path, "api_port": nobody.split(":")[1]}))
        for name in ("postgres", "migrations", "temporal", "worker", "api"):
            assert not checks[name].ok
            assert checks[name].mend
        assert "hidden" not in repr(checks)

    async def test_an_open_key_file_and_a_missing_folder_are_found(self, tmp_path: Path) -> None:
        (tmp_path / "signing_key").touch(mode=0o644)
        checks = await found(given(data_dir=tmp_path, cache_dir=Path("/proc/none")))
        assert checks["signing_key is private"].mend.startswith("chmod 600 ")
        assert not checks["cache folder"].ok
