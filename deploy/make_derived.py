"""Writes what Kubernetes needs a second time: the rules as a PrometheusRule, Redis's files as ConfigMaps.

python deploy/make_derived.py [--check]     --check only says whether they are current
"""

import sys
from pathlib import Path
from textwrap import indent

DEPLOY = Path(__file__).parent
KUBERNETES = DEPLOY / "kubernetes"
NOTE = "# Made by `python deploy/make_derived.py`; do not edit.\n"
HEAD = """apiVersion: {version}
kind: {kind}
metadata:
  name: {name}
  labels: {{app.kubernetes.io/name: {name}, app.kubernetes.io/part-of: predictor}}
"""


def derived() -> dict[Path, str]:
    """Every derived file and its text."""
    redis, cluster = KUBERNETES / "redis", KUBERNETES / "redis-cluster"
    conf = DEPLOY / "redis.conf"
    return {
        KUBERNETES / "base" / "prometheusrule.yaml": rule_object(),
        redis / "configmap.yaml": config_map("predictor-redis", [conf, redis / "start.sh"]),
        cluster / "configmap.yaml": config_map("predictor-redis", [conf, cluster / "start.sh", cluster / "join.sh"]),
    }


def rule_object() -> str:
    """Prometheus's rule file as the object of its operator."""
    rules = (DEPLOY / "prometheus" / "rules.yml").read_text()
    groups = rules[rules.index("groups:") :]
    return (
        NOTE
        + HEAD.format(version="monitoring.coreos.com/v1", kind="PrometheusRule", name="predictor")
        + ("spec:\n" + indent(groups, "  "))
    )


def config_map(name: str, files: list[Path]) -> str:
    """Some files under their own names."""
    data = "".join(f"  {file.name}: |\n{indent(file.read_text(), '    ')}" for file in files)
    return NOTE + HEAD.format(version="v1", kind="ConfigMap", name=name) + "data:\n" + data


def main() -> int:
    wanted = derived()
    if "--check" not in sys.argv:
        for path, text in wanted.items():
            path.write_text(text)
        return 0
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        print(
            f"{path.relative_to(DEPLOY.parent)} is not current: run `python deploy/make_derived.py`.", file=sys.stderr
        )
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
