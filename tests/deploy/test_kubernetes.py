"""The manifests: what kustomize makes of them, the schemas of the cluster, and what the parts promise each other."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.deploy.deployed import DEPLOY, ROOT, make_users
from tests.deploy.kustomize import build, containers, identity, pod
from worker.settings import load

KUBERNETES = "1.33"
OVERLAYS = ("cpu", "gpu", "cluster")
SCHEMAS = {
    path.name.removesuffix(".json"): json.loads(path.read_text())
    for path in (Path(__file__).parent / "schemas").iterdir()
}


@pytest.fixture(params=OVERLAYS)
def objects(request):
    return {identity(made): made for made in build(DEPLOY / "kubernetes" / "overlays" / request.param)}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubectl_makes_the_same_of_it(overlay):
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed: the overlays were resolved without it")
    folder = DEPLOY / "kubernetes" / "overlays" / overlay
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    theirs = {identity(made): made for made in yaml.safe_load_all(done.stdout)}
    assert theirs == {identity(made): made for made in build(folder)}


def test_every_object_fits_its_schema(objects):
    for (kind, name), made in objects.items():
        if kind in SCHEMAS:
            jsonschema.validate(made, SCHEMAS[kind])
        else:
            kubernetes_validate.validate(made, KUBERNETES, strict=True)
        assert made["metadata"]["labels"]["app.kubernetes.io/part-of"] == "predictor", name


@pytest.mark.parametrize("kind", ["ScaledObject", "PodMonitor", "PrometheusRule"])
def test_a_misspelt_field_of_an_extension_is_found(kind):
    objects = build(DEPLOY / "kubernetes" / "overlays" / "cpu")
    made = next(made for made in objects if made["kind"] == kind)
    made["spec"]["mispelt"] = 1
    with pytest.raises(jsonschema.ValidationError, match="mispelt"):
        jsonschema.validate(made, SCHEMAS[kind])


def test_a_misspelt_field_of_kubernetes_is_found(objects):
    made = objects["Deployment", "predictor-worker"]
    made["spec"]["template"]["spec"]["terminationGracePeriod"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(made, KUBERNETES, strict=True)


def test_every_pod_is_confined(objects):
    for made in objects.values():
        if (inside := pod(made)) is None:
            continue
        assert inside["automountServiceAccountToken"] is False
        assert inside["securityContext"]["runAsNonRoot"] and inside["securityContext"]["runAsUser"] > 0
        assert inside["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(made):
            confined = container["securityContext"]
            assert confined["readOnlyRootFilesystem"] and not confined["allowPrivilegeEscalation"]
            assert confined["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
            assert (
                ":" in container["image"]
                and not container["image"].endswith((":", ":latest"))
                or (container["image"].startswith("universal-predictor:"))
            )


def test_a_redis_that_is_away_restarts_no_worker_and_a_graph_that_hangs_does(objects):
    (worker,) = containers(objects["Deployment", "predictor-worker"])
    assert worker["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert worker["readinessProbe"]["httpGet"]["path"] == worker["startupProbe"]["httpGet"]["path"] == "/readyz"
    assert worker["startupProbe"]["periodSeconds"] * worker["startupProbe"]["failureThreshold"] >= 300
    assert pod(objects["Deployment", "predictor-worker"])["terminationGracePeriodSeconds"] == 45


def test_selectors_and_policies_name_pods_and_ports_that_there_are(objects):
    labelled = [made["spec"]["template"]["metadata"]["labels"] for made in objects.values() if pod(made)]
    ports = {port["name"] for made in objects.values() for one in containers(made) for port in one.get("ports", [])}
    for (kind, name), made in objects.items():
        spec = made["spec"] if "spec" in made else {}
        selector = spec.get("podSelector") or spec.get("selector") or {}
        wanted = selector.get("matchLabels", selector) if kind != "Job" else {}
        wanted = {label: value for label, value in wanted.items() if not label.startswith("statefulset.kubernetes.io/")}
        assert any(wanted.items() <= labels.items() for labels in labelled), (kind, name)
        endpoints = spec.get("podMetricsEndpoints", []) + (spec.get("ports", []) if kind == "Service" else [])
        for endpoint in endpoints:
            assert endpoint.get("targetPort", endpoint.get("port")) in ports, (kind, name)
    assert objects["StatefulSet", "predictor-redis"]["spec"]["serviceName"] == "predictor-redis-nodes"
    assert ("Service", "predictor-redis-nodes") in objects


def test_what_is_mounted_and_read_from_the_environment_is_there(objects, tmp_path):
    make_users(tmp_path / "users", "predictor-redis:6379")
    secrets = {file.name for file in (tmp_path / "users").iterdir()}
    for made in objects.values():
        volumes = {volume["name"]: volume for volume in (pod(made) or {}).get("volumes", [])}
        claims = made.get("spec", {}).get("volumeClaimTemplates", []) if made["kind"] == "StatefulSet" else []
        known = volumes.keys() | {claim["metadata"]["name"] for claim in claims}
        for volume in volumes.values():
            if "secret" in volume:
                assert volume["secret"]["secretName"] == "predictor-redis"
                assert {item["key"] for item in volume["secret"]["items"]} <= secrets
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in objects
        for container in containers(made):
            assert {mount["name"] for mount in container["volumeMounts"]} <= known
            for source in container.get("envFrom", []):
                assert ("ConfigMap", source["configMapRef"]["name"]) in objects
            mounted = [m for m in container["volumeMounts"] if volumes.get(m["name"], {}).get("configMap")]
            for mount in mounted:
                scripts = [word for word in container.get("command", []) if word.startswith(mount["mountPath"])]
                files = objects["ConfigMap", volumes[mount["name"]]["configMap"]["name"]]["data"]
                assert all(script.rsplit("/", 1)[1] in files for script in scripts)


def test_the_settings_of_the_workers_are_settings(objects, tmp_path, monkeypatch):
    make_users(tmp_path, "predictor-redis:6379")
    (worker,) = containers(objects["Deployment", "predictor-worker"])
    given = dict(objects["ConfigMap", "predictor-worker"]["data"])
    given |= {one["name"]: one.get("value", "a-pod") for one in worker["env"]}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert given["USP_CONFIG"] == "/run/predictor/worker.toml"
    monkeypatch.setenv("USP_CONFIG", str(tmp_path / "worker.toml"))
    settings = load()
    assert "@predictor-redis:6379" in settings.redis.url and settings.worker.name == "a-pod"
    fleets = {made["spec"]["template"]["metadata"]["labels"].get("fleet") for made in objects.values() if pod(made)}
    assert fleets - {None} == {settings.redis.namespace}


def test_the_fleet_is_scaled_by_numbers_that_workers_serve_and_never_beyond_its_partitions(objects):
    (worker,) = containers(objects["Deployment", "predictor-worker"])
    partitions = int(worker["args"][worker["args"].index("--partitions") + 1])
    scaled = objects["ScaledObject", "predictor-worker"]["spec"]
    assert 1 <= scaled["minReplicaCount"] <= scaled["fallback"]["replicas"] <= scaled["maxReplicaCount"] <= partitions
    page = (ROOT / "docs" / "metrics.md").read_text()
    names = [re.search(r"(predictor_\w+)", trigger["metadata"]["query"]).group(1) for trigger in scaled["triggers"]]
    assert names == ["predictor_backlog_ticks", "predictor_oldest_tick_age_seconds"]
    assert all(f"| `{name}` |" in page for name in names)


def test_one_job_name_for_the_workers_everywhere(objects):
    """The alerts of `up` and of restarts go by it."""
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    monitor = objects["PodMonitor", "predictor-worker"]["spec"]
    labels = objects["Deployment", "predictor-worker"]["spec"]["template"]["metadata"]["labels"]
    assert labels[monitor["jobLabel"]] == scraped[0]["job_name"] == "predictor-worker"
