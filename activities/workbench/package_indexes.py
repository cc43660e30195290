"""The way to package indexes: the few variables of the worker that a set-up is given, and what of them is secret."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from activities.workbench.command import Mount, OnOutput
from activities.workbench.output import CredentialFilter, Scrubber

_PASSED = re.compile(
    r"PIP_(?:INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|TRUSTED_HOST|CERT|CLIENT_CERT|PROXY|DEFAULT_TIMEOUT|RETRIES"
    r"|CONFIG_FILE|PRE|PREFER_BINARY|ONLY_BINARY)"
    r"|UV_(?:(?:DEFAULT_)?INDEX(?:_\w+)?|EXTRA_INDEX_URL|FIND_LINKS|INSECURE_HOST|HTTP_TIMEOUT|NATIVE_TLS"
    r"|SYSTEM_CERTS|OFFLINE|CONFIG_FILE|KEYRING_PROVIDER)"
    r"|GO(?:PROXY|SUMDB|NOSUMDB|NOSUMCHECK|NOPROXY|PRIVATE|INSECURE)"
    r"|(?:HTTPS?|ALL|NO)_PROXY|SSL_CERT_(?:FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|NODE_EXTRA_CA_CERTS"
    r"|NPM_CONFIG_REGISTRY|CARGO_REGISTRIES_\w+_INDEX",
    re.IGNORECASE,
)
_FOR_UV = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_CERT": "SSL_CERT_FILE",
}
_PORT = re.compile(r"://(?:[^/\s@]*@)?(?:\[[^]\s]*\]|[^/\s:@]+):(\d{1,5})\b")
_PORTS = 65_536
_SHOWN_ANYWAY = (Path("/usr"), Path("/etc/ssl"), Path("/etc/pki"))


@dataclass(frozen=True)
class PackageIndexes:
    """How packages are reached from here, from the worker's environment."""

    variables: Mapping[str, str]

    @classmethod
    def known_to(cls, environment: Mapping[str, str]) -> "PackageIndexes":
        """Pick what concerns package indexes; uv is told what pip has been, where it has not been told itself."""
        passed = {name: value for name, value in environment.items() if _PASSED.fullmatch(name) and value}
        for pip, uv in _FOR_UV.items():
            if pip in passed:
                passed.setdefault(uv, passed[pip] if uv != "UV_FIND_LINKS" else ",".join(passed[pip].split()))
        return cls(passed)

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """Certificates, configuration and folders of packages that the variables name, at their own paths."""
        words = {word for value in self.variables.values() for word in re.split(r"[\s,]+", value)}
        named = (Path(word.removeprefix("file://")) for word in sorted(words))
        hidden = (path for path in named if path.is_absolute() and path.exists() and not _is_shown(path))
        return tuple(Mount(path, str(path)) for path in hidden)

    @property
    def ports(self) -> frozenset[int]:
        """The ports that the variables, and the configuration files they name, give for indexes and proxies."""
        named = (Path(value) for name, value in self.variables.items() if name.upper().endswith("_CONFIG_FILE"))
        texts = (
            *self.variables.values(),
            *(path.read_text(errors="replace", encoding="utf-8") for path in named if path.is_file()),
        )
        return frozenset(port for text in texts for port in map(int, _PORT.findall(text)) if 0 < port < _PORTS)

    def hidden(self, on_output: OnOutput) -> "SecretsHidden":
        """Put a filter in front of `on_output` that lets no credential of an index through."""
        return SecretsHidden(dict.fromkeys(self._secrets(), "***"), on_output)

    def _secrets(self) -> Iterator[str]:
        for value in self.variables.values():
            for word in re.split(r"[\s,]+", value):
                try:
                    password = urlsplit(word).password
                except ValueError:
                    continue
                if password:
                    yield from (password, unquote(password))


class SecretsHidden:
    """Passes output on without credentials. `write` it, and `close` it for the last line."""

    def __init__(self, secrets: Mapping[str, str], on_output: OnOutput) -> None:
        self._urls, self._words, self._on_output = CredentialFilter(), Scrubber(secrets), on_output

    async def write(self, data: bytes) -> None:
        """Take output as it comes."""
        await self._give(self._words.feed(self._urls.feed(data)))

    async def close(self) -> None:
        """Give what was held back."""
        await self._give(self._words.feed(self._urls.flush()) + self._words.flush())

    async def _give(self, data: bytes) -> None:
        if data:
            await self._on_output(data)


def _is_shown(path: Path) -> bool:
    return any(path.is_relative_to(place) for place in _SHOWN_ANYWAY)
