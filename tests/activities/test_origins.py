"""What git really says of an origin that cannot be read, and what we make of it."""

import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from activities.workbench.git import Git, GitError
from activities.workbench.mirrors import Mirror
from activities.workbench.origins import login_apart, refusal
from models.domain.repositories import RepositoryUrl
from tests.fixtures.git_repos import make_repo


class Hosting(BaseHTTPRequestHandler):
    """Answers with the status that the path begins with."""

    asked: ClassVar[list[str]] = []
    logins: ClassVar[list[str | None]] = []
    commands: ClassVar[list[str]] = []
    """Of the processes that we have while they ask."""

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.logins.append(self.headers.get("Authorization"))
        self.commands.extend(" ".join(process.cmdline()) for process in psutil.Process().children(recursive=True))
        status = int(self.path.split("/")[1])
        self.send_response(status)
        if 301 <= status <= 308:
            self.send_header("Location", f"/404/{self.path.split('/', 2)[2]}")
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="hosting"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Keep quiet."""


def certify(folder: Path) -> Path:
    """Write a key and a certificate of 127.0.0.1, that certifies itself."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now, address = datetime.now(UTC), x509.IPAddress(ip_address("127.0.0.1"))
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    file = folder / "hosting.pem"
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(private + certificate.public_bytes(pem))
    return file


@pytest.fixture
def hosting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a hosting service on https, whose certificate git trusts."""
    certificate = certify(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setenv("GIT_SSL_CAINFO", str(certificate))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Hosting) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def failure(folder: Path, url: str) -> GitError:
    """What a fetch from there comes to."""
    mirror = Mirror(folder / "mirror.git", RepositoryUrl(url), Git(folder / "home"))
    with pytest.raises(GitError) as failed:
        await mirror.fetch()
    return failed.value


def code_of(error: GitError) -> str | None:
    refused = refusal(error)
    return refused.code if refused else None


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (301, "repository_moved_away"),
        (302, "repository_moved_away"),
        (307, "repository_moved_away"),
        (308, "repository_moved_away"),
        (401, "repository_unauthorized"),
        (403, "repository_unauthorized"),
        (404, "repository_not_found"),
        (429, None),
        (500, None),
        (503, None),
    ],
)
async def test_a_hosting_service_says_no(tmp_path: Path, hosting: str, status: int, code: str | None) -> None:
    assert code_of(await failure(tmp_path, f"{hosting}/{status}/app.git")) == code


async def test_nobody_is_sent_from_a_place_to_another(tmp_path: Path, hosting: str) -> None:
    """Else whoever has a host of their own would come to any repository, with its rules out of force."""
    Hosting.asked.clear()
    error = await failure(tmp_path, f"{hosting}/302/app.git")
    assert "302" in error.stderr
    git = Git(tmp_path / "home")
    with pytest.raises(GitError):
        await git.run("push", f"{hosting}/302/app.git", "main", git_dir=make_repo(tmp_path / "app").path / ".git")
    assert {path.split("/")[1] for path in Hosting.asked} == {"302"}


async def test_no_command_shows_the_login_of_a_url(tmp_path: Path, hosting: str) -> None:
    Hosting.logins.clear()
    Hosting.commands.clear()
    url, login = login_apart(f"{hosting}/404/mirror.git".replace("https://", "https://bob:s%40cret@"))
    with pytest.raises(GitError):
        await Git(tmp_path / "home").run("ls-remote", "--", url, env=login)
    assert set(Hosting.logins) == {"Basic " + b64encode(b"bob:s@cret").decode()}
    assert "ls-remote" in " ".join(Hosting.commands)
    assert not any("cret" in command or "Ym9iOn" in command for command in Hosting.commands)


@pytest.mark.parametrize(
    ("url", "bare"),
    [
        ("https://h/a", "https://h/a"),
        ("https://bob@h/a", "https://bob@h/a"),
        ("https://token:@h/a", "https://h/a"),
        ("ssh://bob@h/a", "ssh://bob@h/a"),
        ("https://:pw@h:8443/a", "https://h:8443/a"),
        ("ssh://bob:pw@h/a", "ssh://bob@h/a"),
        ("git@h:a", "git@h:a"),
        ("/srv/mirror.git", "/srv/mirror.git"),
    ],
)
def test_nothing_else_of_it_is_changed(url: str, bare: str) -> None:
    assert login_apart(url)[0] == bare


async def test_nobody_listens(tmp_path: Path) -> None:
    for url in ("https://127.0.0.1:1/app.git", "ssh://git@127.0.0.1:1/app.git"):
        assert code_of(await failure(tmp_path, url)) is None


async def test_a_host_without_an_address(tmp_path: Path) -> None:
    error = await failure(tmp_path, "https://hosting.invalid/app.git")
    assert "hosting.invalid" in error.stderr
    assert code_of(error) == "repository_host_unknown"


async def test_a_path_that_vanished(tmp_path: Path) -> None:
    assert code_of(await failure(tmp_path, f"file://{tmp_path}/gone.git")) == "repository_not_found"


_COULD_NOT = "fatal: Could not read from remote repository.\n\nPlease make sure you have the correct access rights\n"
SAID = [
    ("git@hosting.example: Permission denied (publickey).\r\n" + _COULD_NOT, "repository_unauthorized"),
    ("fatal: Authentication failed for 'https://hosting.example/app.git/'\n", "repository_unauthorized"),
    ("Host key verification failed.\r\n" + _COULD_NOT, "repository_host_unverified"),
    ("ERROR: Repository not found.\n" + _COULD_NOT, "repository_not_found"),
    ("remote: Not Found\nfatal: repository 'https://hosting.example/app.git/' not found\n", "repository_not_found"),
    (
        "ssh: Could not resolve hostname hosting.example: Name or service not known\r\n" + _COULD_NOT,
        "repository_host_unknown",
    ),
    ("ssh: Could not resolve hostname hosting.example: Temporary failure in name resolution\r\n" + _COULD_NOT, None),
    ("ssh: connect to host hosting.example port 22: Connection timed out\r\n" + _COULD_NOT, None),
    ("fatal: the remote end hung up unexpectedly\n", None),
]


@pytest.mark.parametrize(("said", "code"), SAID)
def test_words_of_hosts_that_are_not_at_hand(said: str, code: str | None) -> None:
    assert code_of(GitError("git ls-remote failed", stderr=said)) == code


def test_a_refusal_says_what_to_do_and_what_git_said() -> None:
    refused = refusal(GitError("git ls-remote failed", stderr="ERROR: Repository not found.\n"))
    assert refused is not None
    assert "correct the URL, or give this service access; then retry the mission." in refused.message
    assert refused.details == {"said": "ERROR: Repository not found.\n"}
