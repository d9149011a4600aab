"""The control service in Prometheus' text format; everything is read when asked for.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/. Must never import: sqlalchemy, flows.
"""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.control.log_status import read_log_statuses
from services.control.state import ControlState
from services.control.switch import every_switched_off
from services.store import decisions, rollouts


class ControlCollector(Collector):
    """Reads the state at each scrape; raises StoreError when the store does not answer."""

    def __init__(self, state: ControlState) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        state, totals = self._state, self._state.totals
        now = state.clock()
        yield _gauge("weight_effective_percent", "Canary weight published now.", state.effective_weight_pct())
        intended = GaugeMetricFamily(
            "trimtab_weight_intended_percent",
            "Canary weight that the rollout means.",
            labels=["service", "rollout"],
        )
        for record in rollouts.all_active(state.db):
            intended.add_metric([record.service, record.id], record.weight_pct)
        yield intended
        off = GaugeMetricFamily(
            "trimtab_action_switched_off", "1 for each action that is off.", labels=["service", "action"]
        )
        for service, actions in every_switched_off(state.db).items():
            for one in actions:
                off.add_metric([service, one.action], 1)
        yield off
        for name, words, mark in (
            (
                "shipped_through_age_seconds",
                "Age of the time up to which decisions are shipped.",
                "SHIPPED_THROUGH",
            ),
            ("outcomes_watermark_age_seconds", "Age of the outcome feed's watermark.", "OUTCOMES_WATERMARK"),
        ):
            value = decisions.read_mark(state.db, getattr(decisions, mark))
            if value is not None:
                yield _gauge(name, words, now - value)
        lag_s = state.lag_s()
        if lag_s is not None:
            yield _gauge(
                "shipper_lag_seconds", "Age of the oldest log line not shipped; 0: none waits.", lag_s
            )
        yield _gauge(
            "shipper_last_pass_age_seconds", "Time since the shipper's last pass.", state.shipper_age_s()
        )
        yield _gauge("decisions_stored", "Decisions in the store.", decisions.count_decisions(state.db))
        for name, words, counts in _log_counts(state):
            family = CounterMetricFamily(f"trimtab_{name}", words, labels=["release"])
            for release, count in counts.items():
                family.add_metric([release], count)
            yield family
        yield _counter("shipped_records", "Records shipped by this process.", totals.shipped)
        yield _counter("bad_log_lines", "Log lines that were no records.", totals.bad_lines)
        yield _counter("late_decisions", "Decisions shipped too late to be evidence.", totals.late)
        yield _counter("refused_requests", "Requests refused for want of a right token.", totals.refused)
        yield _counter("kills", "Kill orders taken by this process.", totals.kills)
        outcomes = CounterMetricFamily("trimtab_outcomes", "Outcomes received, by result.", labels=["result"])
        for result, count in totals.outcomes.items():
            outcomes.add_metric([result], count)
        yield outcomes


def _log_counts(state: ControlState) -> Iterator[tuple[str, str, Mapping[str, int]]]:
    """What never reached a log: as the store has it for good, and as the serving releases say it now."""
    yield "unlogged_decisions", "Decisions answered and never logged.", decisions.unlogged_decisions(state.db)
    said = {name: one for name, one in read_log_statuses(state.home).items() if one is not None}
    missed = {name: one.missed for name, one in said.items()}
    yield "decision_log_missed", "Decisions that a serving process answered and could not log.", missed
    failures = {name: one.sync_failures for name, one in said.items()}
    yield "decision_log_sync_failures", "Times that the disk refused a serving process's log.", failures


def registry_of(state: ControlState) -> CollectorRegistry:
    """A registry of its own: nothing of the process, nothing global."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Undescribed(state))
    return registry


class _Undescribed(ControlCollector):
    def describe(self) -> list[Metric]:
        """Nothing: registering must not read the store."""
        return []


def exposition(registry: CollectorRegistry) -> bytes:
    """The text."""
    return generate_latest(registry)


def _gauge(name: str, words: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"trimtab_{name}", words, value=value)


def _counter(name: str, words: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"trimtab_{name}", words, value=value)
