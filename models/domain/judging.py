"""Whether test results prove a patch: fail-to-pass for the tests it must mend, pass-to-pass for all others.

Three runs are compared: `bare`, the base commit; `before`, the base with the patch's test files; `after`, the patch.

- A must-pass test fails in `before` (or is absent, or cannot run) and passes in `after`. One that passes in `before`
  proves nothing; with `pass_to_pass` it need not.
- Nothing that passed in `bare` fails, is skipped or is missing in `after`. A missing test is excused only where the
  patch changes or takes away the test file that held it, and that file can still be collected if it is there: a human
  is asked about it, and is shown the names. Ids of Go tests name no file and are never excused.
- Results are compared as multisets by id: with several cases of one id, neither may fewer pass nor more fail.
- A test that newly fails is repeated on both sides, and is flaky when the same code then says otherwise. A repeat that
  did not run it says nothing.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from models.domain.testing import Outcome, Source, TestReport, bad, leftovers, normal_id, worst
from models.domain.wording import SHOWN, some

MAX_NAMED = 1000
"""Tests that a verdict names of one kind: it is kept with the stage, and the reports in evidence hold all."""

_EMPTY: Counter[Outcome] = Counter()


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class MustPass(_Frozen):
    """What became of one must-pass name. `before` and `after` are the worst outcome there, or `absent`."""

    name: str
    id: str = ""
    before: str = "absent"
    after: str = "absent"
    reason: str = ""

    @property
    def passed(self) -> bool:
        """Whether the name is proven."""
        return not self.reason


class Regression(_Frozen):
    """A test that passed at the base. `after` is what it is now."""

    id: str
    after: str


class Flaky(_Frozen):
    """A test whose results differ on the same code: passes of all tries, per side."""

    id: str
    base: str
    patch: str


class Findings(_Frozen):
    """What comparing the runs brought up. `reasons` speak against the patch; `notes` are for the reader only.

    Of `regressions` and `excused` the first thousand are named; reasons and notes count all.
    """

    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    must_pass: tuple[MustPass, ...] = ()
    regressions: tuple[Regression, ...] = ()
    excused: tuple[str, ...] = ()


class Verdict(Findings):
    """Whether the results prove the patch, with all that the evidence should show."""

    passed: bool
    flaky: tuple[Flaky, ...] = ()
    counts: dict[str, dict[str, int]]
    source: Source
    cannot_tell: tuple[str, ...] = ()


def suspects(bare: TestReport, after: TestReport, asked_files: Collection[str] = ()) -> tuple[str, ...]:
    """Name the tests to repeat: those that passed at the base and do not pass at the patch.

    None of a run that was stopped: it fails the patch whatever they would say, and could be stopped again.
    """
    if bare.stopped or after.stopped:
        return ()
    files = _collected(asked_files, after)
    return tuple(found.id for found in _regressions(bare, after) if not _excused(found, files))


MAX_REPEATED = 50
"""Suspects that are repeated; a patch that breaks more is judged by its first run."""


def unrepeated(names: Collection[str]) -> tuple[str, ...]:
    """Say in the evidence that the suspects were too many to repeat; nothing where they were not."""
    if len(names) <= MAX_REPEATED:
        return ()
    return (f"{len(names)} tests newly fail, more than the {MAX_REPEATED} that are repeated: flaky ones count, too",)


def settle(
    names: Iterable[str], bare: TestReport, bare_repeats: Sequence[TestReport], after_repeats: Sequence[TestReport]
) -> tuple[Flaky, ...]:
    """Name the suspects that are flaky: a repeat of the base falls short of `bare`, or one of the patch does not."""
    settled = (_settle_one(name, bare, bare_repeats, after_repeats) for name in names)
    return tuple(flaky for flaky in settled if flaky is not None)


def resolve(names: Iterable[str], ids: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Find the ids that names may mean: the exact one, else those that end in the name after `/`, `:` or `.`.

    Of very many only some are given: enough to tell that the name is ambiguous.
    """
    wanted = {name: normal_id(name) for name in names}
    found = _ending_in(set(wanted.values()), ((id, id) for id in ids))
    known = set(ids)
    return {name: (id,) if id in known else tuple(found.get(id, ())) for name, id in wanted.items()}


def still_failing(names: Collection[str], bare: TestReport, merged: TestReport) -> list[str]:
    """Name what does not pass on the merged branch: of the must-pass tests, or where none is named, of what passed.

    A name that means several tests, or none, does not pass: nobody can say that it does.
    """
    if merged.stopped or merged.trouble:
        return [merged.stopped or merged.trouble]
    if not merged.cases:
        worse = merged.exit_code != 0 and bare.exit_code == 0
        return [f"the test command, with exit code {merged.exit_code}"] if worse else []
    if not names:
        return list(suspects(bare, merged))
    return [name for name, ids in resolve(names, merged.by_id).items() if not _passes(ids, merged)]


def _passes(ids: Sequence[str], report: TestReport) -> bool:
    return len(ids) == 1 and worst(report.by_id[ids[0]]) == Outcome.PASSED


def judge(
    bare: TestReport,
    before: TestReport,
    after: TestReport,
    must_pass: Sequence[str],
    pass_to_pass: bool = False,
    flaky: Sequence[Flaky] = (),
    asked_files: Collection[str] = (),
) -> Verdict:
    """Judge a patch by its three runs; where it brings no test files, `before` is `bare`.

    Args:
        flaky: what `settle` found among the `suspects`; these are named and not counted.
        asked_files: test files of the base that the patch touches, each of which asks a human.
    """
    found = Findings(reasons=tuple(_useless(bare, before, after, must_pass)))
    if not found.reasons and after.source is Source.EXIT_CODE:
        found = _by_exit_code(bare, before, after, must_pass)
    elif not found.reasons:
        proofs = _proofs(must_pass, pass_to_pass, before, after)
        found = _by_name(bare, after, proofs, {one.id for one in flaky}, asked_files)
    said = (*_unexplained(bare, before, after), *_left_behind(bare, before, after))
    return Verdict(
        **(dict(found) | {"notes": (*found.notes, *said)}),
        passed=not found.reasons,
        flaky=tuple(flaky),
        counts={"base": bare.counts, "before": before.counts, "after": after.counts},
        source=after.source,
        cannot_tell=after.cannot_tell,
    )


def _by_name(
    bare: TestReport,
    after: TestReport,
    proofs: tuple[MustPass, ...],
    uncounted: Collection[str],
    asked_files: Collection[str],
) -> Findings:
    files = _collected(asked_files, after)
    found = [one for one in _regressions(bare, after) if one.id not in uncounted]
    regressions = tuple(one for one in found if not _excused(one, files))
    excused = tuple(one.id for one in found if _excused(one, files))
    reasons = (
        *(proof.reason for proof in proofs if not proof.passed),
        *_regression_reasons(regressions),
        *_exit_code_reasons(bare, after),
    )
    notes = tuple(_notes(bare, after, excused))
    return Findings(
        reasons=reasons,
        notes=notes,
        must_pass=proofs,
        regressions=regressions[:MAX_NAMED],
        excused=excused[:MAX_NAMED],
    )


def _useless(bare: TestReport, before: TestReport, after: TestReport, must_pass: Sequence[str]) -> Iterable[str]:
    """Say why the runs cannot be compared at all."""
    runs = {"at the base": bare, "before the patch": before if must_pass else None, "at the patch": after}
    for where, run in runs.items():
        if run is not None and run.stopped:
            yield f"the run {where} was stopped: {run.stopped}"
    if bare.source is not after.source:
        yield f"results come from {bare.source} at the base and from {after.source} at the patch: not comparable"
    if after.source is Source.EXIT_CODE:
        yield from (f"the run at the patch has no result: {run.trouble}" for run in (after,) if run.trouble)
    elif not after.stopped:
        yield from _without_cases(bare, after, must_pass)


def _without_cases(bare: TestReport, after: TestReport, must_pass: Sequence[str]) -> Iterable[str]:
    if not after.cases:
        yield "no test was collected at the patch" + (f": {after.trouble}" if after.trouble else "")
    elif not bare.cases and not must_pass:
        why = f" ({bare.trouble})" if bare.trouble else ""
        yield f"no test ran at the base{why}, so nothing can regress: name must-pass tests that prove the patch"


def _by_exit_code(bare: TestReport, before: TestReport, after: TestReport, must_pass: Sequence[str]) -> Findings:
    reasons = []
    if must_pass:
        reasons.append(
            "must-pass tests cannot be checked: the command's exit code is all there is; set `junit` to the file "
            "that its test runner writes"
        )
    if after.exit_code != 0:
        reasons.append(f"the test command ended with code {after.exit_code} at the patch")
    note = f"exit codes: {bare.exit_code} at the base, {before.exit_code} before, {after.exit_code} at the patch"
    return Findings(reasons=tuple(reasons), notes=(note,))


def _proofs(names: Sequence[str], pass_to_pass: bool, before: TestReport, after: TestReport) -> tuple[MustPass, ...]:
    meant = resolve(names, after.by_id)
    absent = {normal_id(name) for name, ids in meant.items() if not ids}
    variants = _ending_in(absent, ((id.partition("[")[0], id) for id in after.by_id if absent and "[" in id))
    return tuple(
        _proof(name, meant[name][0], pass_to_pass, before, after)
        if len(meant[name]) == 1
        else MustPass(name=name, reason=_unresolved(name, meant[name], variants.get(normal_id(name), ())))
        for name in names
    )


def _proof(name: str, id: str, pass_to_pass: bool, before: TestReport, after: TestReport) -> MustPass:
    then, now = before.by_id.get(id, _EMPTY), after.by_id[id]
    known = {"name": name, "id": id, "before": worst(then), "after": worst(now)}
    if now[Outcome.PASSED] != now.total():
        return MustPass(**known, reason=f"must-pass test {name!r} does not pass at the patch: {worst(now)}")
    if not pass_to_pass and not _proves(then, now):
        verb = "is skipped" if worst(then) == Outcome.SKIPPED else "passes"
        hint = "" if verb == "is skipped" else "; if that is meant, say `pass_to_pass`"
        return MustPass(**known, reason=f"must-pass test {name!r} {verb} before the patch: it proves nothing{hint}")
    return MustPass(**known)


def _proves(then: Counter[Outcome], now: Counter[Outcome]) -> bool:
    """Whether a test failed before: a case of it was bad, or not there at all."""
    return bad(then) > 0 or then.total() < now.total()


def _unresolved(name: str, ids: Sequence[str], variants: Sequence[str]) -> str:
    if ids:
        return f"must-pass test {name!r} is ambiguous at the patch: it may be {some(ids, 'others')}"
    hint = f"; there are {some(variants, 'others')}: name them with their parameters" if variants else ""
    return f"must-pass test {name!r} is absent at the patch{hint}"


def _ending_in(wanted: Collection[str], texts: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Map wanted names to ids whose text ends in them at a boundary; of many, to one more than is shown.

    Sorted from behind, the texts with one ending stand together: thousands of long ids of a hostile suite, each with a
    boundary at every letter, cost no more than their length.
    """
    if not wanted:
        return {}
    behind = sorted((text[::-1], id) for text, id in texts)
    return {name: found for name in wanted if (found := _alike(behind, name[::-1]))}


def _alike(behind: Sequence[tuple[str, str]], start: str) -> list[str]:
    """Take the ids whose reversed text is `start`, or goes on with a boundary."""
    found: list[str] = []
    for low, high in ((start, start + "\0"), (start + ".", start + "0"), (start + ":", start + ";")):  # `/` follows `.`
        first, end = bisect_left(behind, (low,)), bisect_left(behind, (high,))
        found += [id for _, id in behind[first : min(end, first + SHOWN + 1)]]
    return found[: SHOWN + 1]


def _regressions(bare: TestReport, after: TestReport) -> list[Regression]:
    return [
        Regression(id=id, after=worst(after.by_id.get(id)))
        for id, then in bare.by_id.items()
        if then[Outcome.PASSED] and _falls_short(after.by_id.get(id, _EMPTY), then)
    ]


def _falls_short(now: Counter[Outcome], then: Counter[Outcome]) -> bool:
    return now[Outcome.PASSED] < then[Outcome.PASSED] or bad(now) > bad(then)


def _collected(files: Collection[str], after: TestReport) -> set[str]:
    """Leave out the files that could not be collected: their tests are missing because something broke."""
    return {file for file in files if not bad(after.by_id.get(file, _EMPTY))}


def _excused(regression: Regression, files: Collection[str]) -> bool:
    return regression.after == "absent" and regression.id.partition("::")[0] in files


def _regression_reasons(regressions: Sequence[Regression]) -> Iterable[str]:
    said = {"absent": "is missing", "skipped": "is skipped"}
    for after in dict.fromkeys(regression.after for regression in regressions):
        ids = [regression.id for regression in regressions if regression.after == after]
        verb = said.get(after, "fails")
        yield f"{len(ids)} test(s) passed at the base, and each {verb} at the patch: {some(ids)}"


def _exit_code_reasons(bare: TestReport, after: TestReport) -> Iterable[str]:
    if after.has_unexplained_failure and not bare.has_unexplained_failure:
        yield f"the test command ended with code {after.exit_code} at the patch although every reported test passed"


def _notes(bare: TestReport, after: TestReport, excused: Sequence[str]) -> Iterable[str]:
    if excused:
        yield f"{len(excused)} test(s) went from files that the patch changes: {some(excused)}"
    if not bare.cases:
        yield "no test ran at the base" + (f" ({bare.trouble})" if bare.trouble else "") + ": nothing could regress"
    new = [id for id, outcomes in after.by_id.items() if bad(outcomes) and id not in bare.by_id]
    if new:
        yield f"{len(new)} test(s) unknown to the base fail at the patch: {some(new)}"


def _unexplained(bare: TestReport, before: TestReport, after: TestReport) -> Iterable[str]:
    """Tell of commands that failed, or were killed from inside, although no test did: the base may do that, too."""
    runs = {"the run at the base": bare, "the run at the patch": after}
    runs |= {} if before is bare else {"the run before the patch": before}
    for name, run in runs.items():
        if run.cases and run.source is not Source.EXIT_CODE and run.has_unexplained_failure:
            yield f"{name} ended with code {run.exit_code} although every reported test passed"


def _left_behind(bare: TestReport, before: TestReport, after: TestReport) -> Iterable[str]:
    yield from leftovers("the run at the base", bare.left_behind)
    if before is not bare:
        yield from leftovers("the run before the patch", before.left_behind)
    yield from leftovers("the run at the patch", after.left_behind)


def _settle_one(
    name: str, bare: TestReport, bare_repeats: Sequence[TestReport], after_repeats: Sequence[TestReport]
) -> Flaky | None:
    then = bare.by_id[name]
    base = [not _falls_short(run.by_id[name], then) for run in bare_repeats if name in run.by_id]
    patch = [not _falls_short(run.by_id[name], then) for run in after_repeats if name in run.by_id]
    if all(base) and not any(patch):
        return None
    # The first try is known: good at the base and not at the patch, else there would be no repeat.
    return Flaky(id=name, base=f"{1 + sum(base)}/{1 + len(base)}", patch=f"{sum(patch)}/{1 + len(patch)}")
