"""Keeps a command with network from the TCP servers of this host; `isolation.py` starts this file outside the package.

Landlock lets all that follows connect to the ports given and to no other, and listen on none. Multipath TCP, TCP Fast
Open and what io_uring does pass it by, so a system call filter takes these away. Neither can be undone.
"""

import ctypes
import os
import platform
import signal
import struct
import sys

_libc = ctypes.CDLL(None, use_errno=True)

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_GET_VERSION, _PORT_RULE = 1, 2
_BIND, _CONNECT = 1, 2
_ABSTRACT_SOCKETS = 1
_WITH_TCP, _WITH_SCOPES = 4, 6
"""Versions of Landlock: Linux 6.7 and 6.12."""

_SET_SECCOMP, _FILTER, _NO_NEW_PRIVILEGES = 22, 2, 38
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_NOT_PERMITTED, _NO_SUCH_CALL, _NO_SUCH_PROTOCOL, _NO_SUCH_FAMILY = 1, 38, 93, 97

_MPTCP, _FAST_OPEN = 262, 0x20000000
_FAMILIES = (1, 2, 10, 16)
"""Unix, IPv4, IPv6 and netlink, by which a resolver learns of addresses; some others fall back to TCP."""
_IO_URING_SETUP = 425
_FOREIGN_NUMBERS = 0x40000000
"""Calls of x86-64 from here on are those of a second interface."""
_MACHINES = {
    "x86_64": (0xC000003E, {"socket": 41, "sendto": 44, "sendmsg": 46, "sendmmsg": 307}),
    "aarch64": (0xC00000B7, {"socket": 198, "sendto": 206, "sendmsg": 211, "sendmmsg": 269}),
}
_FLAGS = {"sendto": 3, "sendmsg": 2, "sendmmsg": 3}
"""Which argument of a call holds its flags."""


def is_supported() -> bool:
    """Whether this kernel and machine have what it takes."""
    return _version() >= _WITH_TCP and platform.machine() in _MACHINES


def main() -> None:
    """Become the command behind `--`, with the ports before it."""
    end = sys.argv.index("--")
    _check(_libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _restrict_ports([int(port) for port in sys.argv[1:end]])
    _filter_calls(_program(*_MACHINES[platform.machine()]))
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python, and so by what it becomes
        signal.signal(ignored, signal.SIG_DFL)
    command = sys.argv[end + 1 :]
    os.execvp(command[0], command)  # noqa: S606  # no shell is wanted here


def _version() -> int:
    return int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _GET_VERSION))


def _restrict_ports(ports: list[int]) -> None:
    scopes = (_ABSTRACT_SOCKETS,) if _version() >= _WITH_SCOPES else ()
    handled = struct.pack(f"{2 + len(scopes)}Q", 0, _BIND | _CONNECT, *scopes)
    ruleset = _check(_libc.syscall(_CREATE_RULESET, handled, ctypes.c_size_t(len(handled)), 0))
    for port in ports:
        _check(_libc.syscall(_ADD_RULE, ruleset, _PORT_RULE, struct.pack("QQ", _CONNECT, port), 0))
    _check(_libc.syscall(_RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def _program(architecture: int, numbers: dict[str, int]) -> bytes:
    """Write the filter in the kernel's form: instructions of code, two jumps and a number."""
    socket = numbers["socket"]
    steps = [
        *((_LOAD, 0, 0, _ARCHITECTURE), (_IF_EQUAL, 1, 0, architecture), _refuse(_NOT_PERMITTED)),
        *((_LOAD, 0, 0, _NUMBER), (_IF_AT_LEAST, 0, 1, _FOREIGN_NUMBERS), _refuse(_NOT_PERMITTED)),
        *((_IF_EQUAL, 0, 1, _IO_URING_SETUP), _refuse(_NO_SUCH_CALL)),
        *_refusal(socket, 2, (_IF_EQUAL, 0, 1, _MPTCP), _NO_SUCH_PROTOCOL),
    ]
    for call, flags in _FLAGS.items():
        steps += _refusal(numbers[call], flags, (_IF_ANY_BIT, 0, 1, _FAST_OPEN), _NOT_PERMITTED)
    known = [(_IF_EQUAL, len(_FAMILIES) - place, 0, family) for place, family in enumerate(_FAMILIES)]
    steps += [(_LOAD, 0, 0, _NUMBER), (_IF_EQUAL, 0, len(known) + 2, socket), (_LOAD, 0, 0, _ARGUMENTS), *known]
    steps += [_refuse(_NO_SUCH_FAMILY), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def _refuse(error: int) -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, _REFUSE | error)


def _refusal(call: int, argument: int, test: tuple[int, int, int, int], error: int) -> list[tuple[int, int, int, int]]:
    """Refuse a call where the lower half of one of its arguments passes a test."""
    load = (_LOAD, 0, 0, _ARGUMENTS + 8 * argument)
    return [(_LOAD, 0, 0, _NUMBER), (_IF_EQUAL, 0, 3, call), load, test, _refuse(error)]


def _filter_calls(program: bytes) -> None:
    held = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(held))
    _check(_libc.prctl(_SET_SECCOMP, _FILTER, described, 0, 0))


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


if __name__ == "__main__":
    main()
