"""A set-up has a network, and yet reaches no server of its host on a port that nobody opened to it."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from activities.workbench import port_guard
from activities.workbench.environments import Environments
from tests.fixtures.sandboxes import KINDS_THAT_HIDE, Bench, bench

WAYS = """
import os, socket, sys
port, name = int(sys.argv[1]), sys.argv[2]
here, too = ("127.0.0.1", port), ("::ffff:127.0.0.1", port)
def of(family=socket.AF_INET, protocol=0): return socket.socket(family, socket.SOCK_STREAM, protocol)
def later(one):
    one.setsockopt(socket.IPPROTO_TCP, 30, 1)  # TCP_FASTOPEN_CONNECT
    one.connect(here)
    one.send(b"x")
ways = {
    "tcp": lambda: of().connect(here),
    "tcp of ipv6": lambda: of(socket.AF_INET6).connect(too),
    "multipath": lambda: of(protocol=socket.IPPROTO_MPTCP).connect(here),
    "multipath of ipv6": lambda: of(socket.AF_INET6, socket.IPPROTO_MPTCP).connect(too),
    "fast open": lambda: of().sendto(b"x", socket.MSG_FASTOPEN, here),
    "fast open of ipv6": lambda: of(socket.AF_INET6).sendto(b"x", socket.MSG_FASTOPEN, too),
    "fast open by message": lambda: of().sendmsg([b"x"], [], socket.MSG_FASTOPEN, here),
    "fast open on connect": lambda: later(of()),
    "an abstract socket": lambda: of(socket.AF_UNIX).connect("\\0" + name),
    "its port, taken": lambda: of().bind(("127.0.0.1", 0)),
    "vsock": lambda: of(socket.AF_VSOCK),
}
for way, try_it in ways.items():
    try:
        try_it()
        print("reached by", way)
    except OSError:
        pass
print("tried all")
"""

pytestmark = pytest.mark.skipif(not port_guard.is_supported(), reason="this kernel cannot tell ports (Linux 6.7 can)")


@pytest.fixture(params=KINDS_THAT_HIDE)
def isolated(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with bench(request.param) as made:
        made.script("ways.py", WAYS)
        yield made


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """Somebody who listens here, by a port and by a name."""
    name = f"\0mission-control-test-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0), backlog=64) as one, socket.socket(socket.AF_UNIX) as other:
        other.bind(name)
        other.listen()
        yield one


def line(server: socket.socket) -> str:
    return f"python3 ways.py {server.getsockname()[1]} mission-control-test-{os.getpid()}"


class TestReach:
    async def test_no_way_leads_to_a_server_of_this_host(self, isolated: Bench, server: socket.socket) -> None:
        assert isolated.sandbox.guards_ports
        await isolated.run(line(server), network=True, ports=frozenset((80, 443)))
        assert isolated.text == "tried all\n"

    def test_all_would_without_the_guard(self, server: socket.socket, tmp_path: Path) -> None:
        (tmp_path / "ways.py").write_text(WAYS)
        words = [sys.executable, *line(server).split()[1:]]
        told = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        reached = {"reached by tcp", "reached by an abstract socket", "reached by its port, taken"}
        assert reached <= set(told.splitlines())

    async def test_a_port_that_was_opened_is_reached(self, isolated: Bench, server: socket.socket) -> None:
        await isolated.run(line(server), network=True, ports=frozenset((server.getsockname()[1],)))
        assert "reached by tcp\nreached by tcp of ipv6\n" in isolated.text

    async def test_names_can_still_be_asked_for(self, isolated: Bench) -> None:
        program = "import socket; socket.getaddrinfo('localhost', 80); socket.socket(type=socket.SOCK_DGRAM)"
        assert (await isolated.run(f'python3 -c "{program}"', network=True)).ok, isolated.text

    @pytest.mark.parametrize("network", [True, False])
    async def test_signals_do_as_always(self, isolated: Bench, network: bool) -> None:
        await isolated.run("(yes; echo $? >&2) | head -n 1", network=network)
        assert sorted(isolated.text.split()) == [str(128 + 13), "y"]


class TestPorts:
    @pytest.mark.parametrize(
        ("variables", "opened"),
        [
            ({}, set()),
            ({"PIP_INDEX_URL": "https://user:1234@packages.example:8443/simple"}, {8443}),
            ({"UV_INDEX": "a=http://one:81/x b=http://[::1]:82", "GOPROXY": "http://three:83,direct"}, {81, 82, 83}),
            ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "here:99"}, {3128}),
            ({"PIP_INDEX_URL": "https://packages.example/1:2/"}, set()),
            ({"HTTP_PROXY": "http://x:0", "ALL_PROXY": "socks5://y:99999"}, set()),
            ({"UNKNOWN": "http://x:77"}, set()),
        ],
    )
    def test_are_those_of_the_indexes(
        self, variables: dict[str, str], opened: set[int], isolated: Bench, tmp_path: Path
    ) -> None:
        assert Environments(tmp_path, isolated.sandbox, variables).ports == {80, 443} | opened

    def test_and_those_that_a_configuration_file_names(self, isolated: Bench, tmp_path: Path) -> None:
        file = tmp_path / "pip.conf"
        file.write_text("[global]\nindex-url = http://packages.example:3141/simple\n")
        variables = {"PIP_CONFIG_FILE": str(file)}
        assert Environments(tmp_path, isolated.sandbox, variables, ports=(9000,)).ports == {80, 443, 3141, 9000}
