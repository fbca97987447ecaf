"""What `kubectl kustomize` makes of our kustomizations: resources, images, and the two kinds of patches that they use.

Whatever it does not know is an error, never left out. Where kubectl is installed a test compares the two.
"""

import copy
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
KNOWN = {"apiVersion", "kind", "resources", "images", "patches"}
MERGED_BY = {
    "containers": "name",
    "env": "name",
    "volumes": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
}


def build(folder: Path) -> list[Object]:
    """Every object of a kustomization."""
    told = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert told["kind"] == "Kustomization" and not told.keys() - KNOWN, told.keys() - KNOWN
    objects = [made for place in told["resources"] for made in _resources(folder / place)]
    names = [identity(made) for made in objects]
    assert len(set(names)) == len(names), f"the same object twice in {folder}"
    for patch in told.get("patches", []):
        _patch(objects, patch, folder)
    for image in told.get("images", []):
        _tag(objects, image)
    return objects


def identity(made: Object) -> tuple[str, str]:
    return made["kind"], made["metadata"]["name"]


def _resources(place: Path) -> list[Object]:
    return build(place) if place.is_dir() else [made for made in yaml.safe_load_all(place.read_text()) if made]


def _patch(objects: list[Object], patch: Object, folder: Path) -> None:
    assert patch.keys() in ({"path"}, {"target", "patch"}), patch
    if "path" in patch:
        change = yaml.safe_load((folder / patch["path"]).read_text())
        (target,) = (made for made in objects if identity(made) == identity(change))
        target.update(_merged(target, change))
        return
    (target,) = (made for made in objects if identity(made) == (patch["target"]["kind"], patch["target"]["name"]))
    for step in yaml.safe_load(patch["patch"]):
        _apply(target, step)


def _merged(base: Any, change: Any, key: str = "") -> Any:
    """The strategic merge: objects field by field, lists that have a key item by item, all else replaced."""
    if isinstance(base, dict) and isinstance(change, dict):
        together = copy.deepcopy(base)
        for name, value in change.items():
            together[name] = _merged(base[name], value, name) if name in base else copy.deepcopy(value)
        return together
    if isinstance(base, list) and isinstance(change, list) and key in MERGED_BY:
        mark = MERGED_BY[key]
        changes = {item[mark]: item for item in change}
        known = {item[mark] for item in base}
        new = [copy.deepcopy(item) for item in change if item[mark] not in known]
        return new + [_merged(item, changes[item[mark]]) if item[mark] in changes else item for item in base]
    return copy.deepcopy(change)


def _apply(target: Object, step: Object) -> None:
    """One operation of JSON 6902."""
    *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:])
    place: Any = target
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    assert last in place, step["path"]
    if step["op"] == "remove":
        del place[last]
    else:
        assert step["op"] == "replace", step["op"]
        place[last] = step["value"]


def _tag(objects: list[Object], image: Object) -> None:
    assert image.keys() == {"name", "newTag"}
    for made in objects:
        for container in containers(made):
            if container["image"].partition(":")[0] == image["name"]:
                container["image"] = f"{image['name']}:{image['newTag']}"


def pod(made: Object) -> Object | None:
    """The pod of a workload."""
    return made["spec"]["template"]["spec"] if made["kind"] in ("Deployment", "StatefulSet", "Job") else None


def containers(made: Object) -> list[Object]:
    return (pod(made) or {}).get("containers", [])
