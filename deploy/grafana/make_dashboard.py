"""Writes deploy/grafana/dashboards/fleet.json from the table of panels below; `--check` only compares.

A panel is a title, a unit and its queries with their legends. Rows fold; four panels stand in a line.
"""

import json
import sys
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parent / "dashboards" / "fleet.json"
WIDTH, HEIGHT, COLUMNS = 6, 7, 4

FLEET = 'fleet=~"$fleet"'
F = f"{{{FLEET}}}"
RATE = "[$__rate_interval]"


def rate(metric: str, by: str = "", where: str = "") -> str:
    """The rate of a counter over the fleet, by a label if it is given."""
    grouped = f" by ({by})" if by else ""
    return f'sum{grouped} (rate({metric}{{fleet=~"$fleet"{where}}}{RATE}))'


def quantile(share: float, metric: str, by: str = "", where: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f'histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{{fleet=~"$fleet"{where}}}{RATE})))'


def each(metric: str) -> str:
    return metric + F


FOLLOWED, LEADS = rate("predictor_followed_values_total"), each("hotpath_lease_held")

Panel = tuple[str, str, list[tuple[str, str]]]
ROWS: dict[str, list[Panel]] = {
    "Traffic": [
        (
            "Ticks",
            "reqps",
            [(rate("predictor_ticks_total"), "applied"), (rate("predictor_predictions_total"), "predictions")],
        ),
        ("Ticks by worker", "reqps", [(rate("predictor_ticks_total", "instance"), "{{instance}}")]),
        ("Backlog", "short", [(f"sum ({each('predictor_backlog_ticks')})", "ticks that wait")]),
        ("Dead letters", "reqps", [(rate("predictor_rejected_total", "reason"), "{{reason}}")]),
        (
            "Ticks in a micro-batch",
            "short",
            [(quantile(0.5, "predictor_batch_ticks"), "median"), (quantile(0.95, "predictor_batch_ticks"), "95 %")],
        ),
        (
            "Assets in a micro-batch",
            "short",
            [(quantile(0.5, "predictor_batch_rows"), "median"), (quantile(0.95, "predictor_batch_rows"), "95 %")],
        ),
        (
            "Workers that serve",
            "short",
            [(f"sum ({each('predictor_ready')})", "ready"), (f"count ({each('predictor_ready')})", "seen")],
        ),
        (
            "Depth of the graph",
            "short",
            [
                (f"min ({each('predictor_signature_depth')})", "least in use"),
                (f"max ({each('predictor_signature_depth_configured')})", "configured"),
            ],
        ),
    ],
    "Latency": [
        (
            "From arrival to commit",
            "s",
            [
                (quantile(q, "predictor_tick_latency_seconds"), name)
                for q, name in ((0.5, "median"), (0.95, "95 %"), (0.99, "99 %"))
            ],
        ),
        ("Oldest tick that waits", "s", [(f"max ({each('predictor_oldest_tick_age_seconds')})", "age")]),
        ("Stages, 95 %", "s", [(quantile(0.95, "predictor_stage_seconds", "stage"), "{{stage}}")]),
        ("Time spent in stages", "percentunit", [(rate("predictor_stage_seconds_sum", "stage"), "{{stage}}")]),
        ("Graph's time over the gap", "percentunit", [(each("predictor_shedding_ratio"), "{{instance}}")]),
        (
            "Jitter",
            "s",
            [
                (f'max (predictor_jitter_seconds{{{FLEET}, statistic="{statistic}"}})', name)
                for statistic, name in (("std", "deviation"), ("p95", "95 %"), ("p99", "99 %"))
            ],
        ),
    ],
    "Partitions": [
        (
            "Held and not held",
            "short",
            [
                (f"sum ({each('predictor_held_partitions')})", "held"),
                (f"max ({each('predictor_partitions')})", "of the fleet"),
                (f"sum ({each('predictor_sealed_partitions')})", "sealed"),
            ],
        ),
        ("Held by worker", "short", [(each("predictor_held_partitions"), "{{instance}}")]),
        ("Leases", "opm", [(f"60 * {rate('predictor_lease_events_total', 'event')}", "{{event}}")]),
        (
            "Longest backlogs",
            "short",
            [(f"topk(5, sum by (partition) ({each('predictor_backlog_ticks')}))", "partition {{partition}}")],
        ),
    ],
    "Store": [
        ("Commits", "reqps", [(rate("predictor_commits_total", "outcome"), "{{outcome}}")]),
        (
            "Refusals and silence",
            "short",
            [
                (f"60 * {rate('predictor_store_refusals_total', 'kind')}", "{{kind}}, a minute"),
                (f"max ({each('predictor_store_silence_seconds')})", "seconds of silence"),
            ],
        ),
        (
            "Redis memory",
            "bytes",
            [(each("redis_memory_used_bytes"), "used"), (each("redis_memory_max_bytes"), "limit")],
        ),
        ("Redis commands", "reqps", [(rate("redis_commands_processed_total"), "commands")]),
        (
            "Redis CPU",
            "percentunit",
            [(rate("redis_cpu_user_seconds_total"), "user"), (rate("redis_cpu_sys_seconds_total"), "system")],
        ),
        (
            "Redis connections",
            "short",
            [(each("redis_connected_clients"), "clients"), (each("redis_connected_slaves"), "replicas")],
        ),
        (
            "Redis writes its file",
            "short",
            [
                (each("redis_aof_last_write_status"), "append-only file, 1 is well"),
                (each("redis_aof_last_bgrewrite_status"), "rewrite, 1 is well"),
            ],
        ),
        (
            "Quarantined and damaged",
            "short",
            [
                (f"sum ({each('predictor_quarantined_assets')})", "assets quarantined"),
                (f"sum ({each('predictor_corrupt_states_total')})", "damaged states found"),
            ],
        ),
    ],
    "Quality": [
        (
            "Values outside their band",
            "percentunit",
            [
                (
                    f"{rate('predictor_band_misses_total', 'side')} / on () group_left () {FOLLOWED}",
                    "{{side}}",
                ),
                (f"1 - max ({each('predictor_band_level')})", "promised, both sides"),
            ],
        ),
        (
            "Mean place in the forecast",
            "short",
            [(f"{rate('predictor_pit_total')} / {FOLLOWED}", "one half is honest")],
        ),
        (
            "Skill against the last value",
            "percentunit",
            [(f"1 - {rate('predictor_forecast_loss_total')} / {rate('predictor_naive_loss_total')}", "CRPS skill")],
        ),
        ("Values that were judged", "reqps", [(rate("predictor_followed_values_total"), "values")]),
    ],
    "Hotpath": [
        (
            "Objective",
            "short",
            [
                (f"{each('hotpath_objective')} * on (instance) ({LEADS} == 1)", "last window"),
                (
                    f"{each('hotpath_objective_ref')} * on (instance) ({LEADS} == 1)",
                    "held against",
                ),
            ],
        ),
        ("Knobs, live", "short", [('max by (knob) (hotpath_knob{fleet=~"$fleet", kind="live"})', "{{knob}}")]),
        (
            "Safe mode, by the leader",
            "short",
            [
                (
                    f"max by (reason) ({each('hotpath_safe_mode')} * on (instance) group_left () {LEADS})",
                    "{{reason}}",
                )
            ],
        ),
        (
            "Rollbacks and violations",
            "opm",
            [
                (f"60 * {rate('hotpath_rollbacks_total', 'cause')}", "back: {{cause}}"),
                (f"60 * {rate('hotpath_violations_total', 'kind')}", "refused: {{kind}}"),
            ],
        ),
        ("Digests", "opm", [(f"60 * {rate('hotpath_digests_total', 'validity')}", "{{validity}}")]),
        (
            "Generations",
            "short",
            [
                (each("hotpath_generation"), "{{instance}}"),
                (f"max ({each('hotpath_worker_lag_generations')})", "slowest is behind by"),
            ],
        ),
        (
            "Noise and probe",
            "short",
            [(f"max ({each('hotpath_sigma_y')})", "noise"), (f"max ({each('hotpath_perturbation_c')})", "probe")],
        ),
        (
            "Trials",
            "short",
            [
                (f"max ({each('hotpath_canary_round')})", "round under way"),
                (
                    'sum by (verdict) (increase(hotpath_canary_verdicts_total{fleet=~"$fleet"}[1h]))',
                    "{{verdict}}, 1 h",
                ),
            ],
        ),
        ("Audit that waits", "short", [(f"max ({each('hotpath_audit_depth')})", "events")]),
    ],
    "Device and process": [
        (
            "CPU",
            "percentunit",
            [(f'rate(process_cpu_seconds_total{{fleet=~"$fleet", job="predictor-worker"}}{RATE})', "{{instance}}")],
        ),
        (
            "Memory",
            "bytes",
            [('process_resident_memory_bytes{fleet=~"$fleet", job="predictor-worker"}', "{{instance}}")],
        ),
        ("Event loop is late by", "s", [(each("predictor_loop_lag_seconds"), "{{instance}}")]),
        (
            "Uptime",
            "s",
            [('time() - process_start_time_seconds{fleet=~"$fleet", job="predictor-worker"}', "{{instance}}")],
        ),
        (
            "Device memory",
            "percentunit",
            [
                (
                    f"{each('predictor_device_memory_used_bytes')} / {each('predictor_device_memory_limit_bytes')}",
                    "{{instance}} {{device}}",
                )
            ],
        ),
        (
            "Device memory broken up",
            "percentunit",
            [(each("predictor_device_memory_broken_up_ratio"), "{{instance}} {{device}}")],
        ),
        ("Compilations", "short", [(each("predictor_compilations"), "{{instance}}")]),
        (
            "Builds",
            "short",
            [
                (
                    f"count by (version, jaxlib, layout) ({each('predictor_build_info')})",
                    "{{version}} jaxlib {{jaxlib}} layout {{layout}}",
                )
            ],
        ),
    ],
}


def dashboard() -> dict[str, Any]:
    """The whole of it, as Grafana imports it."""
    panels, top = [], 0
    for title, row in ROWS.items():
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": top, "w": 24, "h": 1}})  # fmt: skip
        for place, panel in enumerate(row):
            x, y = place % COLUMNS * WIDTH, top + 1 + place // COLUMNS * HEIGHT
            panels.append(_panel(len(panels) + 1, panel, {"x": x, "y": y, "w": WIDTH, "h": HEIGHT}))
        top += 1 + -(-len(row) // COLUMNS) * HEIGHT
    return {
        "uid": "predictor-fleet",
        "title": "Predictor fleet",
        "tags": ["predictor"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [_source_variable(), _fleet_variable()]},
        "annotations": {"list": []},
        "panels": panels,
    }


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    title, unit, queries = panel
    source = {"type": "prometheus", "uid": "$source"}
    targets = [
        {"refId": chr(ord("A") + i), "datasource": source, "expr": query, "legendFormat": legend}
        for i, (query, legend) in enumerate(queries)
    ]
    return {
        "id": number,
        "type": "timeseries",
        "title": title,
        "datasource": source,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0 if unit != "percentunit" else None}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": targets,
    }


def _source_variable() -> dict[str, Any]:
    return {"name": "source", "label": "Source", "type": "datasource", "query": "prometheus"}


def _fleet_variable() -> dict[str, Any]:
    return {
        "name": "fleet",
        "label": "Fleet",
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "$source"},
        "query": {"query": "label_values(predictor_ready, fleet)", "refId": "fleet"},
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def main() -> int:
    text = json.dumps(dashboard(), indent=1) + "\n"
    if "--check" not in sys.argv:
        DASHBOARD.write_text(text)
        return 0
    current = DASHBOARD.exists() and DASHBOARD.read_text() == text
    if not current:
        print(f"{DASHBOARD.name} is not current: run `python deploy/grafana/make_dashboard.py`.", file=sys.stderr)
    return int(not current)


if __name__ == "__main__":
    sys.exit(main())
