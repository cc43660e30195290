"""What operators edit in `config/`, read from disk and named by its hash (V-06)."""

from functools import lru_cache
from pathlib import Path

from models.domain.canonical import digest_of
from models.domain.errors import InvalidInput, Unavailable
from models.domain.metrics import Catalog, parse_catalog
from models.domain.plain_yaml import read_mapping
from models.domain.policy import FILE
from models.domain.policy_names import parse_new_policy
from models.domain.prices import Prices, parse_prices


def load_catalog(config_dir: Path) -> Catalog:
    """Read the metrics catalog (METRIC-08).

    Raises:
        Unavailable: `config_invalid`, naming the entry that is wrong; an operator must mend it.
    """
    path = config_dir / "metrics_catalog.yaml"
    try:
        return parse_catalog(_read(path))
    except InvalidInput as error:
        raise Unavailable("config_invalid", error.message) from error


def load_first_policy(config_dir: Path) -> str:
    """Read the policy that a new workspace begins with, as it is written.

    Raises:
        Unavailable: `config_invalid`, naming the line that is wrong; an operator must mend it.
    """
    try:
        source = _read(config_dir / FILE).decode()
        parse_new_policy(source)
    except UnicodeDecodeError:
        raise Unavailable("config_invalid", f"{FILE} of MC_CONFIG_DIR is not UTF-8 text") from None
    except InvalidInput as error:
        raise Unavailable("config_invalid", error.message) from error
    return source


def load_prices(config_dir: Path) -> Prices:
    """Read the price list, anew only when its file was changed; without a file nothing has a price.

    Raises:
        Unavailable: `config_invalid`, naming the line that is wrong; an operator must mend it.
    """
    path = config_dir / "prices.yaml"
    try:
        found = path.stat()
        return _prices(path, found.st_mtime_ns, found.st_size)
    except FileNotFoundError:
        return Prices()
    except InvalidInput as error:
        raise Unavailable("config_invalid", error.message) from error


@lru_cache(maxsize=4)
def _prices(path: Path, changed: int, size: int) -> Prices:
    return parse_prices(_read(path))


def config_hash(config_dir: Path, policy_version: int | None = None) -> str:
    """Digest all configuration, and a workspace's policy version: equal hashes mean equal rules, however spelt."""
    try:
        paths = sorted(config_dir.glob("*.yaml"))
        files = {path.name: read_mapping(_read(path), path.name, "config_invalid") for path in paths}
    except InvalidInput as error:
        raise Unavailable("config_invalid", error.message) from error
    return digest_of({"files": files, "policy_version": policy_version})


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unavailable("config_invalid", f"{path.name} of MC_CONFIG_DIR cannot be read: {error.strerror}") from error
