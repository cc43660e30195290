"""Metric targets, breaches, the catalog and what probes print."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.contracts.missions import MetricTarget
from models.domain.errors import InvalidInput
from models.domain.metrics import (
    Sample,
    breaches,
    default_targets,
    holds,
    lasting,
    met_in_words,
    missing_proof,
    observed,
    parse_catalog,
    parse_measurements,
    reporters,
    unmet_targets,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
CATALOG = Path(__file__).parents[2] / "config/metrics_catalog.yaml"


def sample(value: float, minutes_ago: float = 1, metric_id: str = "latency") -> Sample:
    return Sample(metric_id=metric_id, value=value, at=NOW - timedelta(minutes=minutes_ago))


def test_a_mission_s_own_commands_report_nothing() -> None:
    sources = ("nina", "home/olga", "probe/before/0/0", "stress/0/0", "probe/2026-11-28T00:00:00+00:00/1")
    found = [sample(1).model_copy(update={"source": source}) for source in sources]
    assert reporters(found, {"latency"}) == {"nina", "home/olga"}
    assert reporters(found, {"other"}) == frozenset()


def target(bound: float = 100.0, comparator: str = "<", metric_id: str = "latency", window: float = 10) -> MetricTarget:
    return MetricTarget.model_validate(
        {"metric_id": metric_id, "comparator": comparator, "target": bound, "rolling_window_minutes": window}
    )


class TestTargets:
    @pytest.mark.parametrize(
        ("comparator", "below", "equal", "above"),
        [
            ("<", True, False, False),
            ("<=", True, True, False),
            (">", False, False, True),
            (">=", False, True, True),
            ("==", False, True, False),
            ("!=", True, False, True),
        ],
    )
    def test_comparators(self, comparator: str, below: bool, equal: bool, above: bool) -> None:
        assert [holds(value, comparator, 5.0) for value in (4.9, 5.0, 5.1)] == [below, equal, above]  # type: ignore[arg-type]  # parametrised

    def test_a_mean_within_the_bound_is_met(self) -> None:
        assert unmet_targets([target()], [sample(150), sample(20)], NOW) == []

    def test_a_percentile_is_judged_by_its_maximum(self) -> None:
        seen = [sample(150, metric_id="latency_p95"), sample(20, metric_id="latency_p95")]
        [found] = unmet_targets([target(metric_id="latency_p95")], seen, NOW)
        assert found.observed == 150

    @pytest.mark.parametrize(
        ("doubted", "others", "seen"),
        [([150], [], 150), ([20], [], None), ([20], [150], 150), ([150], [20], 150), ([20], [20], 0)],
    )
    def test_what_is_doubted_speaks_against_a_target_and_not_for_it(
        self, doubted: list[float], others: list[float], seen: float | None
    ) -> None:
        samples = [sample(value).model_copy(update={"source": "bot"}) for value in doubted] + list(map(sample, others))
        found = unmet_targets([target()], samples, NOW, {"bot"})
        assert [one.observed for one in found] == ([] if seen == 0 else [seen])

    def test_a_doubted_sample_outside_of_a_window_takes_no_proof_away(self) -> None:
        samples = [sample(20), sample(20, minutes_ago=30).model_copy(update={"source": "bot"})]
        assert unmet_targets([target(), target(window=60)], samples, NOW, {"bot"}) == []

    def test_nobody_s_own_hand_drowns_who_is_doubted_too(self) -> None:
        said = [("hand", 0.0)] * 99 + [("prom", 150.0)] + [("olga", 20.0)]
        samples = [sample(value).model_copy(update={"source": source}) for source, value in said]
        assert [one.observed for one in unmet_targets([target()], samples, NOW, {"hand", "prom"})] == [150]

    def test_no_data_is_not_met(self) -> None:
        [found] = unmet_targets([target()], [], NOW)
        assert found.observed is None
        assert str(found) == "latency must be < 100: no sample in the last 10 min"

    def test_only_the_window_counts(self) -> None:
        outside = [sample(500, minutes_ago=10), sample(500, minutes_ago=-1), sample(500, metric_id="other")]
        assert unmet_targets([target()], [*outside, sample(5)], NOW) == []

    def test_the_shortfall_says_metric_bound_and_observation(self) -> None:
        [found] = unmet_targets([target()], [sample(120)], NOW)
        assert str(found) == "latency must be < 100: observed 120 over 10 min"

    def test_what_is_met_is_said_by_its_numbers(self) -> None:
        targets = [target(), target(70, "<=", metric_id="cpu")]
        seen = [sample(20), sample(40), sample(70, metric_id="cpu"), sample(500, minutes_ago=10)]
        assert met_in_words(targets, seen, NOW) == (
            "latency is 30, must be < 100 (2 sample(s)); cpu is 70, must be <= 70 (1 sample(s))"
        )

    @given(st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 50))
    def test_the_mean_of_equal_values_is_that_value(self, value: float, times: int) -> None:
        assert observed("m", [value] * times) == value

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_sample_is_a_finite_number(self, value: float) -> None:
        with pytest.raises(ValueError, match="finite"):
            sample(value)


class TestBreaches:
    def test_a_metric_without_samples_was_not_seen_to_breach(self) -> None:
        assert breaches(unmet_targets([target(), target(metric_id="cpu")], [sample(120)], NOW)) == ("latency",)

    def test_two_in_a_row_last(self) -> None:
        assert lasting(("a", "b"), ("b", "c")) == ("b",)
        assert lasting((), ("b",)) == ()


class TestCatalog:
    def test_the_shipped_catalog(self) -> None:
        catalog = parse_catalog(CATALOG.read_bytes())
        shown = {name: (entry.comparator, entry.target, entry.unit) for name, entry in catalog.metrics.items()}
        assert shown == {
            "trigger_mesh.latency_p95": ("<", 100.0, "ms"),
            "infra.cpu_utilization": ("<", 70.0, "%"),
            "plan_success_rate": (">", 95.0, "%"),
        }

    @pytest.mark.parametrize(("metric_id", "value"), [("infra.cpu_utilization", 70.1), ("plan_success_rate", 95.0)])
    def test_its_bounds_are_strict(self, metric_id: str, value: float) -> None:
        entry = parse_catalog(CATALOG.read_bytes()).metrics[metric_id]
        assert not holds(value, entry.comparator, entry.target)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("metrics: {a.b: {target: 1, comparator: '~', unit: s}}", "`metrics.a.b.comparator`"),
            ("metrics: {a.b: {target: .nan, comparator: '<', unit: s}}", "`metrics.a.b.target`"),
            ("metrics: {a.b: {target: '5', comparator: '<', unit: s}}", "`metrics.a.b.target`"),
            ("metrics: {a.b: {target: 5, comparator: '<'}}", "`metrics.a.b.unit`"),
            ("metrics: {a.b: {target: 5, comparator: '<', unit: s, units: s}}", "did you mean `unit`"),
            ("metrics: {a b: {target: 5, comparator: '<', unit: s}}", "a b"),
            ("metrics: [1]", "`metrics`"),
            ("metric: {}", "`metric`"),
            ("metrics: {a: {target: 1, comparator: '<', unit: s}, a: {}}", "'a' is given twice"),
        ],
    )
    def test_a_malformed_entry_is_named(self, text: str, said: str) -> None:
        with pytest.raises(InvalidInput) as refused:
            parse_catalog(text.encode())
        assert refused.value.code == "metrics_catalog_invalid"
        assert said in refused.value.message

    def test_a_symptom_without_a_target_inherits_the_catalogs(self) -> None:
        catalog = parse_catalog(CATALOG.read_bytes())
        own = target(metric_id="infra.cpu_utilization")
        symptoms = [None, "plan_success_rate", "infra.cpu_utilization", "unknown", "plan_success_rate"]
        [inherited] = default_targets(catalog, symptoms, [own])
        assert MetricTarget.model_validate(inherited.model_dump()) == target(95.0, ">", "plan_success_rate")


class TestMissingProof:
    [missed] = unmet_targets([target()], [sample(150)], NOW)
    [unseen] = unmet_targets([target(metric_id="errors")], [], NOW)

    @pytest.mark.parametrize("broken", [None, ""])
    def test_nothing_speaks_against_targets_that_are_met(self, broken: str | None) -> None:
        assert missing_proof([], broken) == ""

    @pytest.mark.parametrize("broken", [None, ""])
    def test_a_sample_that_is_there_asks_for_no_other(self, broken: str | None) -> None:
        assert missing_proof([self.missed], broken) == str(self.missed)

    def test_without_a_probe_it_says_both_ways_to_bring_samples(self) -> None:
        *said, way = missing_proof([self.missed, self.unseen], None).split("; ")
        assert said == [str(self.missed), str(self.unseen)]
        assert way.startswith("post an observation first (`POST /api/v1/metrics/observations`, by nobody whose own")
        assert way.endswith("or give the repository a `probe` that measures it")

    def test_a_probe_that_printed_no_such_metric_is_to_print_it(self) -> None:
        said = missing_proof(iter([self.unseen]), "")
        assert said.startswith(f"{self.unseen}; the probe printed no such metric: let it, or post an observation")

    def test_a_broken_probe_speaks_against_met_targets_too_and_comes_first(self) -> None:
        assert missing_proof([], "the probe ended with code 1.") == "the probe ended with code 1 (at the patch)"
        assert missing_proof([self.unseen], "no output") == f"no output (at the patch); {self.unseen}"


class TestMeasurements:
    def test_lines(self) -> None:
        assert parse_measurements(b"a.b_p95 12.5\n\n  up  1\n", "probe") == {"a.b_p95": 12.5, "up": 1.0}

    def test_a_json_object(self) -> None:
        assert parse_measurements(b' {"a": 1, "b": 2.5e3}\n', "probe") == {"a": 1.0, "b": 2500.0}

    @pytest.mark.parametrize(
        ("printed", "said"),
        [
            (b"", "nothing was measured"),
            (b"{}", "nothing was measured"),
            (b"a 1 2", "'a 1 2' is not `metric_id value`"),
            (b"warning: old config\na 1", "'warning: old config'"),
            (b"a nan", "no finite number: 'nan'"),
            (b"a 1_000", "no finite number"),
            (b"a 1e999", "no finite number"),
            (b'{"a": NaN}', "no finite number"),
            (b'{"a": true}', "no finite number"),
            (b'{"a": "5"}', "no finite number"),
            (b'{"a": {"b": 1}}', "no finite number"),
            (b'{"a": 1', "not one JSON object"),
            (b'{"a": 1, "a": 2}', "'a' is given twice"),
            (b"a 1\na 2", "'a' is given twice"),
            (b"a$ 1", "not a metric id"),
            (b"x" * 70_000, "70000 bytes"),
            (b"[" * 20_000 + b"\n", "is not `metric_id value`"),
            (b'{"a":' * 5000, "not one JSON object"),
            (b"\n".join(b"m%d 1" % i for i in range(501)), "501 values"),
        ],
    )
    def test_anything_else_is_refused_by_name(self, printed: bytes, said: str) -> None:
        with pytest.raises(InvalidInput) as refused:
            parse_measurements(printed, "probe")
        assert refused.value.message.startswith("probe: ")
        assert said in refused.value.message
