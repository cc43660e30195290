"""Which repository URLs and ref names are accepted, and which folders of this machine."""

import asyncio
import os
import threading
from pathlib import Path, PurePosixPath

import pytest

from models.domain.errors import InvalidInput
from models.domain.repositories import RepositoryUrl, check_ref_name, local_path, place_of, usable
from models.repositories import check_url, look, outside_roots
from tests.fixtures.git_repos import make_repo


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
            "https://example.com/a%00b",
            "ssh://git@example.com/a%0Ab",
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

    @pytest.mark.parametrize(
        "host",
        [
            *("git%68ub.example", "example.com%2Fteam", "127.1", "127.0.0%2e1", "0x7f000001", "2130706433", "a.1"),
            *("faß.example", "münchen.de", "\uff41.example"),
        ],
    )
    def test_hosts_that_some_read_otherwise(self, host: str) -> None:
        for url in (f"https://{host}/app", f"ssh://git@{host}/app", f"git@{host}:app"):
            assert code_of(url).startswith("repository_")


SPELLINGS = {
    "example.com/team/app": [
        "https://example.com/team/app",
        "https://EXAMPLE.com/team/app.git",
        "https://example.com:443/team/app/",
        "https://example.com.//team/./app.git/",
        "https://example.com/x/../Team/te%73t/../APP",
        "ssh://git@example.com/team/app.git",
        "ssh://deploy@example.com:22/~/team/app",
        "ssh://example.com/team/app/.git",
        "git@example.com:team/app.git",
        "git@example.com:/team/app",
        "git@example.com:~/team/app",
    ],
    "example.com:8443/app": ["https://example.com:8443/app", "ssh://git@example.com:8443/app.git"],
    "example.com:443/app": ["ssh://git@example.com:443/app"],
    "example.com/team/app.git2": ["https://example.com/team/app.git2"],
    "xn--mnchen-3ya.de/app": ["https://xn--mnchen-3ya.de/app", "git@XN--mnchen-3ya.de:app"],
    "::1:2222/app": ["ssh://git@[::1]:2222/app"],
    "2001:db8::1/app": ["https://[2001:db8::1]/app", "https://[2001:0DB8:0:0::1]/app", "ssh://git@[2001:db8:0::1]/app"],
    "10.0.0.1/app": ["https://10.0.0.1/app", "https://[::ffff:10.0.0.1]/app", "https://[::ffff:a00:1]/app"],
    "/srv/app": ["/srv/app", "/srv/app/", "/srv/app/.git", "/srv//./x/../app/.git/", "file:///srv/app/.git"],
    "/srv/app.git": ["/srv/app.git"],
    "/srv/App": ["/srv/App"],
    "/": ["/", "//", "/.git"],
}


class TestPlace:
    @pytest.mark.parametrize(("place", "url"), [(place, url) for place, urls in SPELLINGS.items() for url in urls])
    def test_all_spellings_have_one(self, place: str, url: str) -> None:
        assert place_of(url) == place

    def test_a_checked_place_has_it_too(self, root: Path) -> None:
        assert check_url("https://Example.com/app.git", []).place == "example.com/app"
        make_git_dir(root / "app" / ".git")
        assert check_url(f"{root}/app/.git", [root]).place == str(root / "app")


class TestOnePlace:
    """Every path by which git comes to a repository is that repository's, and has one place."""

    def check(self, root: Path, *paths: Path) -> None:
        found = [check_url(str(path), [root]) for path in paths]
        assert {one.place for one in found} == {found[0].place}
        assert check_url(found[0].url, [root]) == found[0]

    def test_its_git_folder(self, root: Path) -> None:
        repo = make_repo(root / "app")
        self.check(root, repo.path, repo.path / ".git", root / "app" / ".git" / ".." / ".git")
        assert check_url(f"{repo.path}/.git", [root]) == RepositoryUrl(str(repo.path), repo.path)

    def test_a_link_to_it(self, root: Path) -> None:
        repo = make_repo(root / "app")
        (root / "link").symlink_to(repo.path)
        (root / "git").symlink_to(repo.path / ".git")
        self.check(root, repo.path, root / "link", root / "git", root / "link" / ".git")

    def test_a_linked_worktree(self, root: Path) -> None:
        repo = make_repo(root / "app")
        repo.git("worktree", "add", "-q", str(root / "beside"))
        self.check(root, repo.path, root / "beside", repo.path / ".git" / "worktrees" / "beside")
        assert check_url(str(root / "beside"), [root]).path == repo.path

    def test_a_linked_worktree_of_a_bare_one(self, root: Path) -> None:
        bare = make_repo(root / "app").bare_copy(root / "bare.git")
        bare.git("worktree", "add", "-q", str(root / "beside"))
        self.check(root, bare.path, root / "beside")
        assert check_url(str(root / "beside"), [root]).path == bare.path

    @pytest.mark.parametrize("how", ["file", "link"])
    def test_a_git_folder_that_lies_elsewhere(self, root: Path, how: str) -> None:
        """Nobody could tell which files are to follow a merge."""
        repo = make_repo(root / "app")
        (repo.path / ".git").rename(root / "store")
        if how == "file":
            (repo.path / ".git").write_text("gitdir: ../store\n")
        else:
            (repo.path / ".git").symlink_to(root / "store")
        for path in (repo.path, root / "store"):
            assert code_of(str(path), root) == "repository_not_git"

    def test_one_that_borrows_its_branches(self, root: Path) -> None:
        repo = make_repo(root / "app")
        other = make_git_dir(root / "new" / ".git")
        (other / "commondir").write_text(f"{repo.path}/.git\n")
        third, fourth = make_git_dir(root / "third" / ".git"), make_git_dir(root / "fourth" / ".git")
        (third / "refs").rmdir()
        (third / "refs").symlink_to(repo.path / ".git" / "refs")
        (fourth / "refs" / "heads").symlink_to(repo.path / ".git" / "refs" / "heads")
        self.check(root, repo.path, other.parent, other)
        for borrows in (third.parent, third, fourth):
            assert code_of(str(borrows), root) == "repository_not_git"

    def test_a_folder_whose_name_is_no_text(self, root: Path) -> None:
        odd = Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9"))
        make_repo(odd)
        (root / "link").symlink_to(odd)
        assert code_of(str(root / "link"), root) == "repository_url_invalid"

    def test_one_that_somebody_committed_is_none(self, root: Path) -> None:
        """Its hooks and links would be those of whoever wrote the patch."""
        repo = make_repo(root / "app")
        repo.bare_copy(repo.path / "docs" / "odd")
        (root / "link").symlink_to(repo.path / "docs" / "odd")
        for path in (repo.path / "docs" / "odd", root / "link"):
            assert code_of(str(path), root) == "repository_embedded"
        assert check_url(str(repo.path / "docs" / "odd"), [repo.path / "docs"]).path == repo.path / "docs" / "odd"

    def test_a_clone_or_a_submodule_within_another_is_one(self, root: Path) -> None:
        repo = make_repo(root / "app")
        inner = make_repo(repo.path / "inner")
        module = make_repo(root / "of").bare_copy(repo.path / ".git" / "modules" / "of")
        self.check(root, inner.path, inner.path / ".git")
        assert check_url(str(module.path), [root]).path == module.path

    def test_a_bare_one_beside_its_own_worktrees_is_one(self, root: Path) -> None:
        bare = make_repo(root / "of").bare_copy(root / "app" / ".bare")
        (root / "app" / ".git").write_text("gitdir: ./.bare\n")
        bare.git("worktree", "add", "-q", str(root / "app" / "main"), "main")
        self.check(root, bare.path, root / "app", root / "app" / "main")

    def test_another_one_is_another(self, root: Path) -> None:
        repo = make_repo(root / "app")
        copies = [repo.bare_copy(root / "app.git"), repo.bare_copy(root / "app2")]
        places = {check_url(str(one.path), [root]).place for one in (repo, *copies)}
        assert len(places) == 3


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

    @pytest.mark.parametrize("there", [True, False])
    def test_what_git_files_name_lies_inside_too(self, root: Path, tmp_path: Path, there: bool) -> None:
        if there:
            make_git_dir(tmp_path / "secret")
        (root / "app").mkdir()
        (root / "app" / ".git").write_text(f"gitdir: {tmp_path}/secret\n")
        (make_git_dir(root / "borrows") / "commondir").write_text("../../secret\n")
        for name in ("app", "borrows"):
            assert code_of(str(root / name), root) == "repository_outside_roots"

    @pytest.mark.parametrize("said", [b"", b"gitdir:", b"elsewhere\n", b"gitdir: a\0b\n", b"x" * 100_000, b"\xff\n"])
    def test_git_files_that_name_nothing(self, root: Path, said: bytes) -> None:
        (root / "app").mkdir()
        (root / "app" / ".git").write_bytes(said)
        assert code_of(str(root / "app"), root) == "repository_not_git"

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
        (root / "linked" / ".git").write_text("gitdir: ../elsewhere\n")
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
