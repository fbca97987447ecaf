"""The compose file: its schema, what it mounts, and that its parts find each other."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.deploy.deployed import DEPLOY, make_users
from tests.deploy.test_image import stages
from tests.deploy.test_runbooks import understood

COMPOSE = yaml.safe_load((DEPLOY / "compose.yml").read_text())
SERVICES = COMPOSE["services"]
# From the compose specification (https://github.com/compose-spec, Apache License 2.0), which has had `name` since.
SCHEMA = json.loads((Path(__file__).parent / "compose-spec.json").read_text())


def test_the_file_fits_the_compose_specification():
    plain = {name: part for name, part in COMPOSE.items() if name != "name"}
    jsonschema.Draft201909Validator(SCHEMA).validate(plain)
    plain["services"]["worker"]["misspelt"] = 1
    with pytest.raises(jsonschema.ValidationError, match="misspelt"):
        jsonschema.Draft201909Validator(SCHEMA).validate(plain)
    del plain["services"]["worker"]["misspelt"]


def test_what_is_mounted_is_a_volume_or_stands_beside_the_file():
    used = set()
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            used.add(source)
            assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], (
                name,
                source,
            )
    assert used >= COMPOSE["volumes"].keys()


def test_a_service_waits_only_for_those_that_can_come_to_what_it_waits_for():
    for name, service in SERVICES.items():
        for other in service.get("depends_on", []):
            assert other in SERVICES, name
            condition = service["depends_on"][other]["condition"] if isinstance(service["depends_on"], dict) else ""
            assert condition != "service_healthy" or "test" in SERVICES[other]["healthcheck"]
            assert condition != "service_completed_successfully" or "restart" not in SERVICES[other]


def test_our_own_commands_are_understood_and_our_own_image_is_built():
    ours = {name: service for name, service in SERVICES.items() if service["image"] == "universal-predictor"}
    assert ours.keys() == {"init", "worker", "console"}
    for service in ours.values():
        understood([word.replace("${PARTITIONS:-64}", "64") for word in service["command"]])
        build = service["build"]
        assert (DEPLOY / build["context"] / build["dockerfile"]).exists() and build["target"] in stages()
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["init"]


def test_every_other_image_is_pinned():
    for name, service in SERVICES.items():
        tag = service["image"].partition(":")[2]
        assert (tag and any(part.isdigit() for part in tag)) or service["image"] == "universal-predictor", name


def test_the_files_with_passwords_that_services_read_are_the_ones_that_are_made(tmp_path):
    script, *given = SERVICES["users"]["entrypoint"][1:]
    assert script == "/deploy/make_users.sh" and given == ["/run/predictor", "redis:6379"]
    make_users(tmp_path, given[1])
    made = {file.name for file in tmp_path.iterdir()}
    read = set(re.findall(r"/run/predictor/([\w.]+)", (DEPLOY / "compose.yml").read_text()))
    assert read <= made and read >= {"users.acl", "worker.toml", "operator.toml", "monitor.json", "replica.password"}
    assert f"@{given[1]}" in (tmp_path / "worker.toml").read_text()


def test_prometheus_and_grafana_look_where_the_services_are():
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    assert scraped[0]["dns_sd_configs"][0]["names"] == ["worker"] and scraped[0]["dns_sd_configs"][0]["port"] == 8080
    assert scraped[1]["static_configs"][0]["targets"] == ["redis-exporter:9121"]
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090" and {"prometheus", "worker", "redis-exporter"} <= SERVICES.keys()
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/predictor.yml").read_text())["providers"][0]
    folder = provider["options"]["path"]
    assert any(volume.split(":")[1] == folder for volume in SERVICES["grafana"]["volumes"])
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.startswith(folder) and (DEPLOY / "grafana" / "dashboards" / Path(home).name).exists()
