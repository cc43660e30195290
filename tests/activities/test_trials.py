"""Running a project's own tests, stress command and probe in the real sandbox."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from activities.workbench.command import Limits, Mount
from activities.workbench.sandbox import Sandbox
from activities.workbench.trials import Place, run_probe, run_stress, run_trial
from models.domain.errors import StageFailed
from models.domain.judging import judge, settle, suspects
from models.domain.repo_config import Commands, RepoConfig, detect, effective_commands
from models.domain.stress import compare_stress
from models.domain.testing import Source

SOURCE = "def divide(a, b):\n    return {body}\n"
OLD_TESTS = "from calc import divide\ndef test_divide(): assert divide(4, 2) == 2\n"
NEW_TESTS = OLD_TESTS + "def test_by_zero(): assert divide(1, 0) is None\n"
BROKEN, MENDED = "a / b", "a / b if b else None"
FLAKY = """
from pathlib import Path
def test_flaky():
    mark = Path("mark")
    seen = mark.exists()
    mark.touch()
    assert seen
"""


@pytest.fixture(scope="session")
def sandbox() -> Sandbox:
    return Sandbox.detect("auto")


@pytest.fixture(scope="session")
def environment() -> tuple[Mount, ...]:
    """Pytest, as an environment that was built for the project would hold it."""
    return (Mount(Path(pytest.__file__).parents[1], "/env"),)


@pytest.fixture
def place(tmp_path: Path, environment: tuple[Mount, ...]) -> Place:
    for name in ("tree", "out"):
        (tmp_path / name).mkdir()
    return Place(
        tmp_path / "tree", tmp_path / "out", environment, {"PYTHONPATH": "/env", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    )


class Output:
    """What the command printed."""

    def __init__(self) -> None:
        self.text = ""

    async def __call__(self, data: bytes) -> None:
        self.text += data.decode()


def write(place: Place, **files: str) -> Place:
    for name, content in files.items():
        (place.tree / name.replace("__", "/").replace("_py", ".py")).write_text(content)
    return place


def commands(**given: object) -> Commands:
    return effective_commands(RepoConfig.model_validate(given), None, RepoConfig())


class TestPython:
    async def test_a_mission_from_base_to_patch(self, sandbox: Sandbox, place: Place) -> None:
        chosen = effective_commands(RepoConfig(), None, detect(["calc.py", "test_calc.py"]))
        trials = []
        for body, tests in ((BROKEN, OLD_TESTS), (BROKEN, NEW_TESTS), (MENDED, NEW_TESTS)):
            write(place, calc_py=SOURCE.format(body=body), test_calc_py=tests)
            trials.append(await run_trial(sandbox, place, chosen, Output()))
        bare, before, after = (trial.report for trial in trials)
        verdict = judge(bare, before, after, ["test_by_zero"])
        assert verdict.reasons == ()
        assert verdict.must_pass[0].id == "test_calc.py::test_by_zero"
        assert trials[2].result.isolation is sandbox.isolation

    async def test_a_module_that_cannot_be_imported_hides_no_others(self, sandbox: Sandbox, place: Place) -> None:
        write(place, test_a_py="def test_a(): pass\n", test_b_py="import nowhere\n", pytest_ini="")
        (place.tree / "pytest.ini").write_text("[pytest]\naddopts = -x\n")
        trial = await run_trial(sandbox, place, commands(test="python -m pytest"), Output())
        assert {case.id: case.outcome.value for case in trial.report.cases} == {
            "test_a.py::test_a": "passed",
            "test_b.py": "error",
        }

    async def test_a_real_regression_is_told_from_a_flaky_test(self, sandbox: Sandbox, place: Place) -> None:
        plain = commands(test="python -m pytest -q")
        write(place, test_f_py="def test_flaky(): pass\n", test_r_py="def test_real(): pass\n")
        bare = (await run_trial(sandbox, place, plain, Output())).report
        write(place, test_f_py=FLAKY, test_r_py="def test_real(): assert 0\n")
        after = (await run_trial(sandbox, place, plain, Output())).report
        names = suspects(bare, after)
        assert names == ("test_f.py::test_flaky", "test_r.py::test_real")
        repeat = (await run_trial(sandbox, place, plain, Output(), only=names, installed=True)).report
        assert [found.id for found in settle(names, bare, [bare], [repeat])] == ["test_f.py::test_flaky"]

    async def test_only_the_files_of_suspects_are_repeated(self, sandbox: Sandbox, place: Place) -> None:
        write(place, test_a_py="def test_a(): pass\n", test_b_py="def test_b(): pass\n")
        trial = await run_trial(
            sandbox, place, commands(test="python -m pytest -q"), Output(), only=["test_b.py::test_b"]
        )
        assert [case.id for case in trial.report.cases] == ["test_b.py::test_b"]


@pytest.fixture(scope="session")
def go_cache() -> tuple[Mount, ...]:
    """The standard library as this machine has compiled it; without it, every test would compile it anew."""
    subprocess.run(["go", "test", "-count=1", "errors"], check=True, stdout=subprocess.DEVNULL)
    folder = subprocess.run(["go", "env", "GOCACHE"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    return (Mount(Path(folder), "/gocache"),)


class TestGo:
    async def test_results_come_from_the_stream(
        self, sandbox: Sandbox, place: Place, go_cache: tuple[Mount, ...]
    ) -> None:
        write(place, **{"go.mod": "module example.com/m\n\ngo 1.20\n"})
        (place.tree / "a_test.go").write_text(
            'package m\nimport "testing"\nfunc TestA(t *testing.T) { t.Error("no") }\n'
        )
        chosen = effective_commands(RepoConfig(), None, detect(["go.mod"]))
        warm = replace(place, mounts=go_cache, env={"GOCACHE": "/gocache", "GOFLAGS": "-mod=mod"})
        trial = await run_trial(sandbox, warm, chosen, Output())
        assert trial.report.source is Source.GOTEST
        assert [(case.id, case.outcome.value) for case in trial.report.cases] == [("example.com/m::TestA", "failed")]
        assert trial.report.exit_code == 1

    async def test_a_broken_module_says_why(self, sandbox: Sandbox, place: Place) -> None:
        (place.tree / "go.mod").write_text("nonsense\n")
        chosen = effective_commands(RepoConfig(), None, detect(["go.mod"]))
        trial = await run_trial(sandbox, place, chosen, Output())
        assert "go.mod" in trial.report.trouble


class TestReports:
    async def test_without_a_report_the_exit_code_is_all(self, sandbox: Sandbox, place: Place) -> None:
        trial = await run_trial(sandbox, place, commands(test="exit 3"), Output())
        assert (trial.report.source, trial.report.exit_code) == (Source.EXIT_CODE, 3)
        assert trial.report.trouble == ""

    async def test_reports_by_glob(self, sandbox: Sandbox, place: Place) -> None:
        line = "mkdir r; for n in 1 2; do echo \"<testsuite><testcase name='$n'/></testsuite>\" > r/$n.xml; done"
        trial = await run_trial(sandbox, place, commands(test=line, junit="r/*.xml"), Output())
        assert [case.id for case in trial.report.cases] == ["1", "2"]

    async def test_reports_from_before_do_not_count(self, sandbox: Sandbox, place: Place) -> None:
        (place.tree / "r.xml").write_text("<testsuite><testcase name='forged'/></testsuite>")
        (place.out / "r.xml").write_text("<testsuite><testcase name='forged'/></testsuite>")
        trial = await run_trial(sandbox, place, commands(test="exit 4", junit="r.xml"), Output())
        assert trial.report.cases == ()
        assert trial.report.trouble == "the command ended with code 4, and no test case is in 'r.xml'"
        trial = await run_trial(sandbox, place, commands(test="true", junit="/out/r.xml"), Output())
        assert trial.report.cases == ()

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("ln -s /etc/passwd r.xml", "it is a symbolic link"),
            ("mkfifo r.xml", "it is not a regular file"),
            ("printf '<!DOCTYPE a [<!ENTITY b \"c\">]><a/>' > r.xml", "it declares a DTD or entities"),
            ("head -c 70000000 /dev/zero | tr '\\0' ' ' > r.xml", "more than 67108864 bytes"),
        ],
    )
    async def test_hostile_reports_are_refused_by_name(
        self, sandbox: Sandbox, place: Place, line: str, said: str
    ) -> None:
        with pytest.raises(StageFailed, match=said) as refused:
            await run_trial(sandbox, place, commands(test=line, junit="r.xml"), Output())
        assert refused.value.code == "report_refused"

    async def test_a_command_that_hangs_is_stopped_and_says_for_what(self, sandbox: Sandbox, place: Place) -> None:
        hanging = commands(test="sleep 60", junit="r.xml", timeout=0.5)
        report = (await run_trial(sandbox, place, hanging, Output())).report
        assert (report.stopped, report.exit_code, report.trouble) == ("it ran longer than 0.5 s", None, "")
        assert judge(report, report, report, []).reasons[0].endswith("was stopped: it ran longer than 0.5 s")

    async def test_too_much_output_is_stopped(self, sandbox: Sandbox, place: Place) -> None:
        loud = replace(place, limits=Limits(output=10_000))
        report = (await run_trial(sandbox, loud, commands(test="yes"), Output())).report
        assert report.stopped == "it printed more than 10000 bytes"


class TestInstall:
    async def test_it_runs_first_and_once(self, sandbox: Sandbox, place: Place) -> None:
        chosen = commands(install="echo x >> installs", test="cat installs")
        output = Output()
        await run_trial(sandbox, place, chosen, output)
        await run_trial(sandbox, place, chosen, output, installed=True)
        assert output.text == "x\nx\n"

    async def test_a_failure_is_a_result(self, sandbox: Sandbox, place: Place) -> None:
        chosen = commands(install="exit 7", test="true", junit="r.xml")
        report = (await run_trial(sandbox, place, chosen, Output())).report
        assert (report.trouble, report.exit_code, report.cases) == ("install ended with code 7", 7, ())

    @pytest.mark.parametrize(("install", "test", "left"), [("true", "true", 0), ("setsid {0}", "{0} {0}", 3)])
    async def test_what_the_commands_left_behind_is_counted(
        self, sandbox: Sandbox, place: Place, install: str, test: str, left: int
    ) -> None:
        chosen = commands(install=install.format("sleep 600 &"), test=test.format("setsid sleep 600 &"), junit="r.xml")
        assert (await run_trial(sandbox, place, chosen, Output())).report.left_behind == left


class TestStress:
    async def test_measured_values_and_speed_are_compared(self, sandbox: Sandbox, place: Place) -> None:
        chosen = commands(test="true", stress="""echo '{"a.p95": 12}' > /out/metrics.json""")
        run = await run_stress(sandbox, place, chosen, Output())
        assert (run.exit_code, run.measured) == (0, {"a.p95": 12.0})
        assert compare_stress(run, run).passed

    async def test_what_it_measured_must_be_numbers(self, sandbox: Sandbox, place: Place) -> None:
        chosen = commands(test="true", stress="echo hello there, world > /out/metrics.json")
        with pytest.raises(StageFailed, match=r"metrics\.json: 'hello there, world' is not"):
            await run_stress(sandbox, place, chosen, Output())

    async def test_a_stop_is_named(self, sandbox: Sandbox, place: Place) -> None:
        run = await run_stress(sandbox, place, commands(test="true", stress="sleep 60", timeout=0.3), Output())
        assert (run.exit_code, run.stopped) == (None, "it ran longer than 0.3 s")

    @pytest.mark.parametrize(("line", "left"), [("true", 0), ("setsid sleep 600 &", 1)])
    async def test_what_it_left_behind_is_counted(self, sandbox: Sandbox, place: Place, line: str, left: int) -> None:
        assert (await run_stress(sandbox, place, commands(test="true", stress=line), Output())).left_behind == left


class TestProbe:
    async def test_values(self, sandbox: Sandbox, place: Place) -> None:
        assert await run_probe(sandbox, place, commands(test="true", probe="echo up 1"), Output()) == {"up": 1.0}

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("exit 2", "The probe ended with code 2"),
            ("sleep 60", "The probe was stopped: it ran longer"),
            ("echo hello", "what the probe printed: 'hello' is not"),
            ("yes 'a 1' | head -c 100000", "65537 bytes"),
        ],
    )
    async def test_anything_else_is_a_clear_failure(self, sandbox: Sandbox, place: Place, line: str, said: str) -> None:
        with pytest.raises(StageFailed, match=said):
            await run_probe(sandbox, place, commands(test="true", probe=line, timeout=2), Output())
