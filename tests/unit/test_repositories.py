"""Which repository URLs and ref names are accepted, and which folders of this machine."""

import asyncio
import threading
from pathlib import Path, PurePosixPath

import pytest

from models.domain.errors import InvalidInput
from models.domain.repositories import RepositoryUrl, check_ref_name, local_path, usable
from models.repositories import check_url, look, outside_roots


def make_git_dir(path: Path) -> Path:
    for name in ("objects", "refs"):
        (path / name).mkdir(parents=True)
    (path / "HEAD").write_text("ref: refs/heads/main\n")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def code_of(url: str, *roots: Path) -> str:
    with pytest.raises(InvalidInput) as refused:
        check_url(url, roots)
    return refused.value.code


def test_only_what_lies_on_this_machine_outside_the_roots_is_outside(root: Path, tmp_path: Path) -> None:
    inside = make_git_dir(root / "inside")
    outside = make_git_dir(tmp_path / "outside")
    (root / "link").symlink_to(outside)
    urls = [str(inside), str(root / "gone"), str(outside), str(root / "link"), "https://example.com/app", "git@a.b:c"]
    assert outside_roots(urls, [root]) == (str(outside), str(root / "link"))
    assert outside_roots(urls, iter([tmp_path])) == ()
    assert outside_roots(urls[:2], []) == tuple(urls[:2])


class TestRemote:
    @pytest.mark.parametrize(
        "url",
        [
            "https://example.com/team/app.git",
            "https://example.com:8443/app",
            "ssh://git@example.com/team/app.git",
            "ssh://git@[::1]:2222/app",
            "git@example.com:team/app.git",
            "deploy.bot@example.com:app",
        ],
    )
    def test_accepted(self, url: str) -> None:
        assert check_url(url, []) == RepositoryUrl(url)
        assert local_path(url) is None

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "-oProxyCommand=x",
            "https://example.com/a\nb",
            "https://",
            "https://example.com/a b",
            "https://h/a?t=1",
            "https://[::1/a",
            "ssh://-oProxyCommand=x/a",
            "ssh://-x@host/a",
            "https://example.com/",
            "https://h:x/a",
        ],
    )
    def test_unreadable(self, url: str) -> None:
        assert code_of(url) == "repository_url_invalid"

    @pytest.mark.parametrize(
        "url",
        [
            "ext::sh -c id",
            "http://example.com/a",
            "git://example.com/a",
            "fd::17",
            "ftp://example.com/a",
            "src/app",
            "host:path",
            "git@-host:path",
            "git@host:-path",
            "https:example.com/a",
            "h@host:a x",
        ],
    )
    def test_other_ways_to_reach_a_repository(self, url: str) -> None:
        assert code_of(url) == "repository_scheme_not_allowed"

    @pytest.mark.parametrize(
        "url", ["https://ada:secret@example.com/a", "https://token@example.com/a", "ssh://git:secret@example.com/a"]
    )
    def test_credentials(self, url: str) -> None:
        assert code_of(url) == "repository_credentials_in_url"


class TestLocal:
    def test_checkout_and_bare(self, root: Path) -> None:
        make_git_dir(root / "app" / ".git")
        make_git_dir(root / "bare.git")
        for name in ("app", "bare.git"):
            place = root / name
            assert check_url(str(place), [root]) == RepositoryUrl(str(place), place)

    def test_file_url(self, root: Path) -> None:
        make_git_dir(root / "my app")
        assert check_url(f"file://{root}/my%20app", [root]).path == root / "my app"

    def test_links_are_followed_first(self, root: Path, tmp_path: Path) -> None:
        make_git_dir(tmp_path / "secret")
        (root / "innocent").symlink_to(tmp_path / "secret")
        (root / "app").mkdir()
        (root / "app" / ".git").symlink_to(tmp_path / "secret")
        assert code_of(str(root / "innocent"), root) == "repository_outside_roots"
        assert code_of(str(root / "app"), root) == "repository_outside_roots"

    def test_root_that_is_a_link(self, root: Path, tmp_path: Path) -> None:
        make_git_dir(root / "app")
        (tmp_path / "alias").symlink_to(root)
        assert check_url(str(root / "app"), [tmp_path / "alias"]).path == root / "app"

    def test_outside(self, root: Path, tmp_path: Path) -> None:
        make_git_dir(tmp_path / "rooted")
        assert code_of(str(tmp_path / "rooted"), root) == "repository_outside_roots"
        assert code_of(f"{root}/../rooted", root) == "repository_outside_roots"
        assert code_of(f"file://{tmp_path}/rooted", root) == "repository_outside_roots"
        assert code_of(str(tmp_path / "rooted")) == "repository_outside_roots"
        with pytest.raises(InvalidInput, match="MC_REPOSITORY_ROOTS"):
            check_url(str(tmp_path / "rooted"), [root])

    def test_file_url_of_another_host(self, root: Path) -> None:
        assert code_of(f"file://elsewhere{root}", root) == "repository_url_invalid"

    def test_no_repository(self, root: Path) -> None:
        (root / "linked").mkdir()
        (root / "linked" / ".git").write_text("gitdir: /elsewhere\n")
        assert code_of(str(root / "missing"), root) == "repository_not_git"
        assert code_of(str(root / "linked"), root) == "repository_not_git"

    def test_loop(self, root: Path) -> None:
        (root / "loop").symlink_to(root / "loop")
        assert code_of(str(root / "loop"), root) in ("repository_url_invalid", "repository_not_git")


class SlowFolder(type(Path())):  # type: ignore[misc]
    """A folder that is found only once somebody says so, as one of a network that hangs."""

    asked, found = threading.Event(), threading.Event()

    def resolve(self, strict: bool = False) -> Path:
        self.asked.set()
        assert self.found.wait(10), "the event loop waits for the folder"
        return Path(self)


class TestLook:
    def test_the_rules_know_a_path_without_looking(self) -> None:
        assert local_path("/gone/../app") == PurePosixPath("/gone/../app")
        assert local_path("file:///my%20app") == PurePosixPath("/my app")

    async def test_a_folder_that_hangs_holds_up_nobody_else(self, root: Path) -> None:
        make_git_dir(root / "app")
        looking = asyncio.create_task(look(str(root / "app"), [SlowFolder(root)]))
        assert await asyncio.to_thread(SlowFolder.asked.wait, 10)
        assert not looking.done()
        SlowFolder.found.set()
        assert usable(await looking) == RepositoryUrl(str(root / "app"), root / "app")

    @pytest.mark.parametrize(
        ("url", "code"), [("app", "repository_scheme_not_allowed"), ("/etc", "repository_outside_roots")]
    )
    async def test_a_refusal_is_raised_where_it_counts(self, root: Path, url: str, code: str) -> None:
        found = await look(url, [root])
        with pytest.raises(InvalidInput) as refused:
            usable(found)
        assert refused.value.code == code

    async def test_a_remote_place_needs_no_root(self) -> None:
        assert await look("https://example.com/app", []) == RepositoryUrl("https://example.com/app")


class TestRefNames:
    @pytest.mark.parametrize("name", ["main", "feature/x-1", "v1.2.3", "refs/heads/main", "a" * 40, "fix_ü"])
    def test_accepted(self, name: str) -> None:
        assert check_ref_name(name) == name

    @pytest.mark.parametrize(
        "name",
        [
            "",
            "-x",
            "a..b",
            "a b",
            "a~1",
            "HEAD^",
            "x:y",
            "a@{1}",
            "@",
            "/a",
            "a/",
            "a//b",
            ".a",
            "a/.b",
            "a.lock",
            "a\nb",
            "a\x7fb",
            "a*",
            "a\\b",
            "a.",
            "x" * 300,
        ],
    )
    def test_refused(self, name: str) -> None:
        with pytest.raises(InvalidInput, match="is not a name"):
            check_ref_name(name)
