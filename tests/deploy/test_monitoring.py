"""Rules and dashboard against what a running worker and a running exporter serve, and by a running Prometheus."""

import json
import re
import runpy
import shutil
import signal
import subprocess
import urllib.parse

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.deployed import DEPLOY, ROOT, fetch, free_port, running, wait_for
from tests.deploy.queries import asked

RULES = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
CONFIG = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "fleet.json").read_text())
ALL_RULES = [rule for group in RULES["groups"] for rule in group["rules"]]
ALERTS = [rule for rule in ALL_RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in ALL_RULES if "record" in rule}
OF_PROMETHEUS = {"up", "le", "fleet", "job", "instance"}  # what it adds to everything it scrapes
ON_ACCELERATORS = re.compile("predictor_device_")
# Of redis_exporter; the real one is asked too where it is installed.
EXPORTED = {
    "redis_up", "redis_memory_used_bytes", "redis_memory_max_bytes", "redis_aof_last_write_status",
    "redis_aof_last_bgrewrite_status", "redis_rdb_last_bgsave_status", "redis_aof_enabled", "redis_evicted_keys_total",
    "redis_commands_processed_total", "redis_cpu_user_seconds_total", "redis_cpu_sys_seconds_total",
    "redis_connected_clients", "redis_connected_slaves",
}  # fmt: skip


def panels() -> list[tuple[str, str]]:
    """Title and query of every panel, as Grafana would send it."""
    plain = {"$fleet": ".*", "$__rate_interval": "10s"}
    found = []
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"]
            for variable, value in plain.items():
                query = query.replace(variable, value)
            assert "$" not in query, query
            found.append((panel["title"], query))
    return found


def queries() -> list[tuple[str, str]]:
    return [(rule.get("alert") or rule["record"], rule["expr"]) for rule in ALL_RULES] + panels()


@pytest.fixture(scope="session")
def served(site) -> dict[str, set[str]]:
    """Every series' name on the worker's page, and its labels."""
    return series(site.page())


def series(page: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_every_query_asks_for_what_a_running_worker_serves(served):
    known = {name for labels in served.values() for name in labels} | OF_PROMETHEUS
    for where, query in queries():
        names, grouped, matched = asked(query)
        for name in names - EXPORTED - RECORDED - OF_PROMETHEUS:
            if ON_ACCELERATORS.match(name):
                continue
            assert name in served, f"{where}: no worker serves {name}"
            unknown = matched[name] - served[name] - OF_PROMETHEUS
            assert not unknown, f"{where}: {name} has no label {unknown}"
        assert grouped <= known | {"device"}, f"{where}: nothing has the labels {grouped - known}"


def test_every_value_that_a_query_matches_is_one_that_the_label_has(site):
    page = site.page()
    for where, query in queries():
        for label, value in re.findall(r'(\w+)="([^"]*)"', query):
            if label in OF_PROMETHEUS:
                assert (label, value) == ("job", "predictor-worker"), where
            else:
                assert f'{label}="{value}"' in page, f"{where}: {label} is never {value!r}"


def test_what_is_asked_of_redis_is_what_its_exporter_serves(site):
    asked_for = {name for _, query in queries() for name in asked(query)[0] if name.startswith("redis_")}
    assert asked_for == EXPORTED
    if site.exporter_port is None:
        pytest.skip("redis_exporter is not installed: its names were compared with a list")
    page = wait_for(lambda: fetch(f"http://127.0.0.1:{site.exporter_port}/metrics"), "the exporter")
    assert EXPORTED <= series(page).keys()
    assert "redis_up 1" in page and "redis_aof_enabled 1" in page


def test_an_alert_says_how_bad_it_is_and_where_to_read_on():
    page = (ROOT / "docs" / "runbooks.md").read_text()
    headings = {heading.lower() for heading in re.findall(r"^## (\w+)$", page, re.M)}
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("critical", "warning"), rule["alert"]
        assert rule["annotations"]["summary"].endswith("."), rule["alert"]
        place, anchor = rule["annotations"]["runbook_url"].split("#")
        assert (ROOT / place).name == "runbooks.md" and anchor == rule["alert"].lower() and anchor in headings
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS)


def test_what_is_recorded_is_recorded_before_it_is_used():
    known: set[str] = set()
    for rule in ALL_RULES:
        names = asked(rule["expr"])[0]
        assert {name for name in names if ":" in name} <= known, rule
        known |= {rule["record"]} if "record" in rule else set()


@pytest.mark.parametrize("broken", ["sum(up", "up{job=}", "up)", 'up{job="a" b="c"}', "rate(up[5m)]"])
def test_a_query_that_is_none_is_found(broken):
    with pytest.raises(ValueError):
        asked(broken)


def test_panels_stand_beside_each_other_and_have_ids_of_their_own():
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        columns = range(place["x"], place["x"] + place["w"])
        cells = {(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])}
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert {"Traffic", "Latency", "Partitions", "Store", "Quality", "Hotpath"} <= set(rows)


@pytest.mark.parametrize(
    "script", ["deploy/grafana/make_dashboard.py", "deploy/make_derived.py", "docs/make_metrics.py"]
)
def test_what_is_made_from_other_files_is_current(script, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [script, "--check"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert end.value.code == 0, capsys.readouterr().err


# -- with Prometheus itself --------------------------------------------------------------------------------------------


def promtool(*words) -> subprocess.CompletedProcess:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian's package is called prometheus)")
    return subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True, timeout=60)


def test_promtool_accepts_the_rules_and_the_configuration():
    for what in ("rules", "config"):
        file = DEPLOY / "prometheus" / ("rules.yml" if what == "rules" else "prometheus.yml")
        done = promtool("check", what, "--lint=all" if what == "rules" else "--syntax-only", file)
        assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_every_panel(tmp_path):
    rules = [{"record": f"panel:{number}", "expr": query} for number, (_, query) in enumerate(panels())]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = promtool("check", "rules", "--lint=none", tmp_path / "panels.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_comes_when_it_should_and_not_when_it_should_not():
    told = yaml.safe_load((DEPLOY / "prometheus" / "rules.test.yml").read_text())
    expected = [alert for test in told["tests"] for alert in test["alert_rule_test"]]
    for silent in (False, True):
        covered = {alert["alertname"] for alert in expected if bool(alert.get("exp_alerts")) != silent}
        assert covered == {rule["alert"] for rule in ALERTS}, "each alert is tested both ways"
    done = promtool("test", "rules", DEPLOY / "prometheus" / "rules.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


class Prometheus:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/api/v1"

    def ask(self, query: str) -> list[dict]:
        answer = json.loads(fetch(f"{self.url}/query?query={urllib.parse.quote(query)}"))
        assert answer["status"] == "success", answer
        return answer["data"]["result"]

    def rules(self) -> list[dict]:
        answer = json.loads(fetch(f"{self.url}/rules"))
        return [rule for group in answer["data"]["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def prometheus(site, tmp_path_factory):
    """A Prometheus with the shipped configuration, but for where its targets are and how often it looks."""
    executable = shutil.which("prometheus")
    if executable is None or site.exporter_port is None:
        pytest.skip("prometheus and redis_exporter are not both installed")
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    config = json.loads(json.dumps(CONFIG))
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms", "scrape_timeout": "500ms"}
    worker, redis = config["scrape_configs"]
    del worker["dns_sd_configs"]
    worker["static_configs"] = [{"targets": [f"127.0.0.1:{site.http_port}"]}]
    redis["static_configs"][0]["targets"] = [f"127.0.0.1:{site.exporter_port}"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(DEPLOY / "prometheus" / "rules.yml", folder)
    command = (executable, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data")
    with running(*command, f"--web.listen-address=127.0.0.1:{port}", log=folder / "log"):
        prometheus = Prometheus(port)
        wait_for(lambda: prometheus.ask("count_over_time(predictor_ready[10s]) > 8"), "five seconds of scrapes")
        yield prometheus


def test_every_panel_of_a_working_fleet_shows_something(prometheus):
    empty = [(title, query) for title, query in panels() if not prometheus.ask(query)]
    assert all(ON_ACCELERATORS.search(query) for _, query in empty), empty
    assert float(prometheus.ask('sum(predictor_ticks_total{fleet="usp"})')[0]["value"][1]) > 0


def test_a_calm_fleet_raises_no_alarm_and_every_rule_can_be_evaluated(prometheus):
    rules = wait_for(lambda: all(r["health"] == "ok" for r in prometheus.rules()) and prometheus.rules(), "evaluations")
    assert {rule["name"] for rule in rules} == {rule.get("alert") or rule["record"] for rule in ALL_RULES}
    assert not [(rule["name"], rule["alerts"]) for rule in rules if rule.get("state", "inactive") != "inactive"]


def test_a_worker_that_is_gone_is_noticed(prometheus, site):
    site.worker.send_signal(signal.SIGKILL)
    site.worker.wait()
    noticed = {"PredictorWorkerUnreachable"}
    wait_for(lambda: noticed <= {r["name"] for r in prometheus.rules() if r.get("state") == "pending"}, "the alarm")
