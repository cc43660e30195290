"""What a client command does with the API's answers."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app

AWAY = (503, {"success": False, "error": {"code": "worker_unavailable", "message": "away", "requestId": "r"}})
DONE = (200, {"success": True, "data": {"effect": "holds_before_next_stage"}})
Answer = tuple[int, dict[str, object]]


@pytest.mark.parametrize(("answers", "code"), [([AWAY, DONE], 0), ([AWAY, AWAY], 1)])
def test_a_command_that_no_worker_took_is_said_once_more(answers: list[Answer], code: int) -> None:
    left, keys = list(answers), []

    class Api(BaseHTTPRequestHandler):
        """Answers as the test says."""

        def do_POST(self) -> None:
            keys.append(self.headers["Idempotency-Key"])
            self.rfile.read(int(self.headers["Content-Length"]))
            status, answer = left.pop(0)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        words = ["mission", "pause", "m", "--url", f"http://127.0.0.1:{server.server_port}", "--api-key", "k"]
        ended = CliRunner().invoke(app, words)
        server.shutdown()
    assert (ended.exit_code, left, len(set(keys))) == (code, [], 1)


@pytest.mark.parametrize(("options", "said"), [([], None), (["--env", "prod"], "prod")])
def test_which_environment_a_repository_has_is_the_servers_to_say(options: list[str], said: str | None) -> None:
    asked = []

    class Api(BaseHTTPRequestHandler):
        """Takes nothing, and notes what it is asked for."""

        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(404)
            self.end_headers()
            self.wfile.write(b'{"error": {"code": "not_found", "message": "nothing", "requestId": "r"}}')

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        where = ["--url", f"http://127.0.0.1:{server.server_port}", "--api-key", "k"]
        CliRunner().invoke(app, ["repository", "add", "https://example.com/x", *options, *where])
        server.shutdown()
    assert [body.get("env") for body in asked] == [said]


@pytest.mark.parametrize("noun", ["mission", "decision", "alert", "repository", "run"])
def test_a_name_is_one_part_of_the_address(noun: str) -> None:
    asked = []

    class Api(BaseHTTPRequestHandler):
        """Has nothing, and notes what it is asked for."""

        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()
            self.wfile.write(b'{"error": {"code": "not_found", "message": "nothing", "requestId": "r"}}')

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        words = [noun, "show", "x/../y?z", "--url", f"http://127.0.0.1:{server.server_port}", "--api-key", "k"]
        ended = CliRunner().invoke(app, words)
        server.shutdown()
    assert (ended.exit_code, [path.rpartition("/")[2] for path in asked]) == (1, ["x%2F..%2Fy%3Fz"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--usd", "8"], {"cap_usd": "8"}),
        (["--usd", "none"], {"cap_usd": None}),
        (["--tokens", "9"], {"cap_tokens": 9}),
        (["--usd", "8", "--tokens", "none"], {"cap_usd": "8", "cap_tokens": None}),
    ],
)
def test_a_cap_is_changed_by_one_request_that_says_no_more(options: list[str], said: dict[str, object]) -> None:
    asked = []

    class Api(BaseHTTPRequestHandler):
        """Takes a change, and nothing else."""

        def do_PATCH(self) -> None:
            asked.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"success": True, "data": key | {"cap_usd": "8", "cap_tokens": 9}}).encode())

    key = {"scope": "agent_day", "owner": "agent", "name": "probe"}
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        where = ["--url", f"http://127.0.0.1:{server.server_port}", "--api-key", "k"]
        ended = CliRunner().invoke(app, ["budget", "set", *key.values(), *options, *where])
        server.shutdown()
    assert (ended.exit_code, asked) == (0, [("/api/v1/budgets", key | said)])


@pytest.mark.parametrize("place", ["nowhere/log.jsonl", "a-file/log.jsonl", "a-folder"])
def test_an_export_that_cannot_be_written_is_told_and_leaves_nothing(place: str, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("x")
    (tmp_path / "a-folder").mkdir()

    class Api(BaseHTTPRequestHandler):
        """Exports a line."""

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"kind": "log"}\n')

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        words = ["audit", "export", "-o", str(tmp_path / place), "--url", url, "--api-key", "k"]
        ended = CliRunner().invoke(app, words)
        server.shutdown()
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "file_unwritable: " in ended.stderr
    assert "--output" in ended.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"a-file", "a-folder"}


@pytest.mark.parametrize("url", ["nonsense", "http://", "ftp://x", "localhost:8000", "http://localhost:65536", "h\0"])
def test_a_url_that_is_none_is_told_as_such(url: str) -> None:
    ended = CliRunner().invoke(app, ["mission", "list", "--url", url, "--api-key", "k"])
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("wrong_url: ")
    assert "mend --url or MC_API_URL" in ended.stderr


@pytest.mark.parametrize("verb", ["create", "try"])
def test_a_policy_that_is_no_text_is_told_so(verb: str, tmp_path: Path) -> None:
    file = tmp_path / "latin.yaml"
    file.write_bytes("rules: [] # für".encode("latin-1"))
    words = ["policy", verb, str(file), "--url", "http://127.0.0.1:1", "--api-key", "k"]
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == 2, ended.output
    assert "cannot be read as UTF-8 text" in " ".join(ended.stderr.replace("│", " ").split())
