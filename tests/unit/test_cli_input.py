"""What is typed, or set, and can never be right is refused before anything is asked, and a key is never shown."""

from pathlib import Path
from typing import ClassVar

import pytest
from typer.testing import CliRunner, Result

from cli import client
from cli.errors import Unreachable
from cli.main import app
from models.domain.plain_yaml import MAX_BYTES
from tests.fixtures.answers import Api, Json

SECRET = "mc_" + "VerySecret-_0"
AROUND = ["\n", "\r", "\r\n", " ", "\t"]
TRUTHS = ("requires_governance_approval", "touches_config")
NO_KEYS = [f"{SECRET}\nmc_other", f"{SECRET}ü", f"{SECRET}\x7f", f"{SECRET} x", f"{SECRET}\x1b[2J", " \n"]


def told(ended: Result) -> str:
    return " ".join(ended.stderr.replace("│", " ").split())


class TestKey:
    """Wherever it comes from."""

    @pytest.fixture(params=["option", "variable", "file"])
    def source(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.delenv("MC_API_KEY", raising=False)
        monkeypatch.setenv("MC_API_KEY_FILE", str(tmp_path / "own.key"))
        return tmp_path / "own.key"

    def run(self, source: str, key: str, place: Path, api: Api, *words: str) -> Result:
        option = ("--api-key", key) if source == "option" else ()
        variables = {"MC_API_KEY": key} if source == "variable" else {}
        if source == "file":
            place.write_text(key, newline="")
        with api.serving() as url:
            return CliRunner(env=variables).invoke(app, [*words, "--url", url, *option])

    @pytest.mark.parametrize("behind", AROUND)
    def test_white_space_around_it_is_left_out(self, source: str, place: Path, behind: str) -> None:
        api = Api({"items": []})
        ended = self.run(source, f" {SECRET}{behind}", place, api, "decision", "list")
        assert (ended.exit_code, api.keys) == (0, [f"Bearer {SECRET}"]), ended.output

    @pytest.mark.parametrize("words", [("decision", "list"), ("decision", "list", "--json"), ("mission", "watch", "m")])
    @pytest.mark.parametrize("key", NO_KEYS)
    def test_what_is_none_is_refused_unseen(self, source: str, place: Path, key: str, words: tuple[str, ...]) -> None:
        api = Api({"items": []})
        ended = self.run(source, key, place, api, *words)
        named = {"option": "--api-key", "variable": "MC_API_KEY", "file": str(place)}[source]
        assert (ended.exit_code, api.asked, ended.stdout) == (2, [], "")
        assert ("wrong_key" in ended.stderr, named in ended.stderr) == (True, True), ended.stderr
        assert "VerySecret" not in ended.stderr

    def test_a_file_that_is_no_text_is_none(self, place: Path) -> None:
        place.write_bytes(b"\xff\xfe" + SECRET.encode())
        ended = CliRunner().invoke(app, ["decision", "list", "--url", "http://127.0.0.1:1"])
        assert (ended.exit_code, "wrong_key" in ended.stderr, "VerySecret" in ended.stderr) == (2, True, False)

    def test_what_cannot_be_sent_is_not_quoted(self) -> None:
        with client.Api("http://127.0.0.1:1", f"{SECRET}\n") as api, Api({}).serving() as url:
            api._http.base_url = url
            with pytest.raises(Unreachable) as failed:
                api.get("/decisions")
        assert ("LocalProtocolError" in str(failed.value), SECRET in str(failed.value)) == (True, False)


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("key", "create", "olga"), "--days"),
        (("key", "rotate", "k"), "--grace"),
        (("agent", "rotate-key", "probe"), "--grace"),
        (("policy", "explain", "--action", "shell", "--as", "service"), "--usd"),
        (("policy", "explain", "--action", "shell", "--as", "service"), "--usd-left"),
        (("mission", "create", "--repo", "r"), "--window"),
    ],
)
def test_a_number_is_finite(words: tuple[str, ...], option: str, number: str) -> None:
    api = Api({})
    ended = api.run(*words, f"{option}={number}")
    assert (ended.exit_code, api.asked) == (2, []), ended.output
    assert f"'{option}'" in told(ended)


@pytest.mark.parametrize("value", [".nan", ".inf", "2026-01-10", "2026-99-99", '"\\ud800"', "&a [*a]"])
def test_a_file_says_nothing_that_no_request_can(value: str, tmp_path: Path) -> None:
    file = tmp_path / "mission.yaml"
    file.write_text(f"context: {{x: {value}}}\n")
    api = Api({})
    ended = api.run("mission", "create", "--file", str(file))
    assert (ended.exit_code, api.asked) == (2, []), ended.output
    assert "--file" in told(ended)


@pytest.mark.parametrize(
    "words",
    [
        ("mission", "cancel", "m", "--yes", "--reason", "x\udcff"),
        ("mission", "show", "m\udcff"),
        ("decision", "list", "--kind", "\udcff", "--json"),
        ("mission", "list", "--api-key", "mc_VerySecret\udcff"),
        ("\udcff",),
    ],
)
def test_words_that_are_no_text_are_refused_by_their_place(words: tuple[str, ...]) -> None:
    ended = CliRunner().invoke(app, list(words))
    number = 1 + next(at for at, word in enumerate(words) if "\udcff" in word)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert f"word {number} of the command is no UTF-8 text" in ended.stderr
    assert "VerySecret" not in ended.stderr


def test_an_address_that_is_no_text_is_told_as_such() -> None:
    ended = CliRunner(env={"MC_API_URL": "\udcff"}).invoke(app, ["decision", "list", "--api-key", "k"])
    assert (ended.exit_code, ended.stderr.startswith("wrong_url: ")) == (2, True), ended.output


class TestFacts:
    """`policy explain --fact` asks of what would hold."""

    words = ("policy", "explain", "--action", "mission.merge", "--as", "service")
    verdict: ClassVar[Json] = {
        "risk": "GREEN",
        "outcome": "allow",
        "rules": [],
        "reasons": [],
        "policy_version": 1,
        "ask": None,
    }

    @pytest.mark.parametrize(
        ("said", "sent"),
        [
            (["requires_governance_approval=false"], {"requires_governance_approval": False}),
            (["requires_governance_approval=True", "touches_config"], dict.fromkeys(TRUTHS, True)),
            (["medium_findings=0"], {"medium_findings": 0}),
            (["medium_findings=12"], {"medium_findings": 12}),
            (["ci_files=a.yml", "ci_files=b.yml"], {"ci_files": ["a.yml", "b.yml"]}),
            (["judges=", "gone_tests=7"], {"judges": [], "gone_tests": ["7"]}),
            (["filed_by=true", "mission_id=0"], {"filed_by": "true", "mission_id": "0"}),
            (["odd=false", "odder=0", "oddest=a=b"], {"odd": False, "odder": 0, "oddest": "a=b"}),
        ],
    )
    def test_each_is_sent_as_its_type(self, said: list[str], sent: Json) -> None:
        api = Api(self.verdict)
        ended = api.run(*self.words, *(word for each in said for word in ("--fact", each)))
        assert ended.exit_code == 0, ended.output
        assert api.asked[0][1]["facts"] == sent

    @pytest.mark.parametrize(
        ("said", "because"),
        [
            (["requires_governance_approval=no"], "is true or false"),
            (["touches_config=0"], "is true or false"),
            (["medium_findings=some"], "is a whole number"),
            (["medium_findings=true"], "is a whole number"),
            (["medium_findings=0.0"], "is a whole number"),
            (["medium_findings=1", "medium_findings=2"], "is said twice"),
            (["touches_config=false", "touches_config=true"], "is said twice"),
            (["ci_files=a", "ci_files"], "is said twice"),
        ],
    )
    def test_what_is_none_of_its_type_is_refused(self, said: list[str], because: str) -> None:
        api = Api(self.verdict)
        ended = api.run(*self.words, *(word for each in said for word in ("--fact", each)))
        assert (ended.exit_code, api.asked) == (2, []), ended.output
        assert ("--fact" in told(ended), because in told(ended)) == (True, True), ended.stderr


@pytest.mark.parametrize("verb", ["create", "try"])
@pytest.mark.parametrize(("text", "size"), [("x" * (MAX_BYTES + 1), "65,537"), ("ü" * (MAX_BYTES // 2 + 1), "65,538")])
def test_a_policy_that_is_too_long_is_told_so(verb: str, text: str, size: str, tmp_path: Path) -> None:
    file = tmp_path / "long.yaml"
    file.write_text(text, encoding="utf-8")
    api = Api({})
    ended = api.run("policy", verb, str(file))
    assert (ended.exit_code, api.asked) == (2, [])
    assert f"is too long for a policy: it has {size} bytes, and may have 65,536" in told(ended)
