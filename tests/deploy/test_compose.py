"""The Compose file and the overrides of the pages, read by Docker Compose itself; the secrets' modes."""

from __future__ import annotations

import re
import stat
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from tests.deploy.manifests import DEPLOY, HOW_TO, Manifest, compose_file, console_compose_file, yaml_blocks
from tests.deploy.tools import COMPOSE_PACKAGE, compose
from tests.docs.snippets import read_snippets

PAGE = HOW_TO / "containers.md"


CONSOLE = {"BASE_DATA": "/base", "CONSOLE_NAME": "machine.example.com"}


def _check(*files: Path, models: str = "/models", **variables: str) -> subprocess.CompletedProcess[str]:
    options = [argument for file in files for argument in ("-f", str(file))]
    environment = {"MODEL_REPOSITORY": models, **variables}
    return compose(*options, "--project-directory", str(DEPLOY), "config", "-q", folder=DEPLOY, **environment)


def test_compose_is_the_pinned_binary_and_no_newer_one_that_its_package_built() -> None:
    assert compose("version", "--short").stdout.strip() == version(COMPOSE_PACKAGE)


def test_compose_takes_its_file_with_each_override_of_the_pages(tmp_path: Path) -> None:
    """A page's later override is merged into the earlier ones."""
    checked = [[DEPLOY / "compose.yaml"], [DEPLOY / "compose.yaml", DEPLOY / "compose.console.yaml"]]
    for page in sorted(HOW_TO.glob("*.md")):
        files = checked[0]
        for text in yaml_blocks(page.name):
            if re.search(r"^services:", text, re.MULTILINE):
                files = [*files, tmp_path / f"{page.stem}-{len(files)}.yaml"]
                files[-1].write_text(text)
                checked.append(files)
    assert {file.name for files in checked for file in files} >= {"containers-1.yaml", "containers-2.yaml"}
    for files in checked:
        result = _check(*files, **CONSOLE)
        print(f"\n{', '.join(file.name for file in files)}: {result.stderr.strip() or 'accepted, without a warning'}")
        assert result.returncode == 0, result.stderr
        assert not result.stderr, result.stderr


@pytest.mark.parametrize(
    ("service", "broken", "complaint"),
    [
        pytest.param("gateway", {"pids_limit": 100}, "invalid compose project", id="limit-of-processes-twice"),
        pytest.param("gateway", {"secrets": ["key"]}, "undefined secret key", id="secret-that-is-not-there"),
        pytest.param("server", {"networks": ["server"]}, "undefined network server", id="network-that-is-not-there"),
        pytest.param("grafana", {"depends_on": ["promtheus"]}, "depends on undefined service", id="service-misspelt"),
    ],
)
def test_compose_refuses_what_the_schema_passes(tmp_path: Path, service: str, broken: Manifest, complaint: str) -> None:
    file = tmp_path / "override.yaml"
    file.write_text(yaml.safe_dump({"services": {service: broken}}))
    result = _check(DEPLOY / "compose.yaml", file)
    assert result.returncode != 0
    assert complaint in result.stderr


def test_compose_names_the_export_that_is_missing() -> None:
    result = _check(DEPLOY / "compose.yaml", models="")
    assert result.returncode != 0
    assert "MODEL_REPOSITORY is missing a value: the folder that export-repository wrote" in result.stderr


@pytest.mark.parametrize(
    ("variable", "says"),
    [
        ("BASE_DATA", "the folder of base images that was exported"),
        ("CONSOLE_NAME", "the name in the URL that browsers use for this machine"),
    ],
)
def test_compose_names_what_the_console_lacks_and_asks_others_for_nothing(variable: str, says: str) -> None:
    given = {name: value for name, value in CONSOLE.items() if name != variable}
    result = _check(DEPLOY / "compose.yaml", DEPLOY / "compose.console.yaml", **given)
    assert result.returncode != 0
    assert f"{variable} is missing a value: {says}" in result.stderr
    assert _check(DEPLOY / "compose.yaml").returncode == 0


def test_failed_health_checks_of_a_container_that_is_starting_do_not_count() -> None:
    services = {**compose_file()["services"], "console": console_compose_file()["services"]["console"]}
    for name, service in services.items():
        assert "start_period" in service.get("healthcheck", {"start_period": "the image's"}), name


def test_gateways_files_are_its_users_whatever_runc_makes_of_a_mode() -> None:
    """runc 1.1.5 ignores the mode of a tmpfs on a folder that the image has; it honours the owner."""
    (mount,) = compose_file()["services"]["gateway"]["tmpfs"]
    assert {"uid=101", "gid=101"} <= set(mount.partition(":")[2].split(","))


def test_secrets_of_the_page_are_closed_to_the_machines_accounts_and_open_to_the_containers_users(
    tmp_path: Path,
) -> None:
    """The folder keeps others out. A container's user reads each mounted file, past the folder."""
    text = PAGE.read_text()
    assert "sudo" not in text
    assert "chown" not in text
    blocks = [
        "\n".join(line for line in snippet.code.splitlines() if "docker" not in line)
        for snippet in read_snippets(PAGE)
        if snippet.language == "sh" and "deploy/secrets" in snippet.code
    ]
    (tmp_path / "deploy" / "monitoring").mkdir(parents=True)
    for mask in ("077", "000"):
        for block in blocks:
            command = ["bash", "-euc", f"umask {mask}\nHOSTNAME=localhost\n{block}"]
            result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert result.returncode == 0, result.stderr
            (tmp_path / "deploy" / "secrets" / "alertmanager.yml").touch(0o600)  # before the last block opens it
        folder = tmp_path / "deploy" / "secrets"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        modes = {file.name: oct(stat.S_IMODE(file.stat().st_mode)) for file in folder.iterdir()}
        assert modes == dict.fromkeys(
            (
                "keys.map", "server.crt", "server.key", "grafana_password", "evaluators.map", "alertmanager.yml",
                "console_tokens",
            ),
            "0o644",
        )  # fmt: skip
