"""Images in place of those that a registry would give, under the names that ``deploy/`` and the pages pull.

Each is Debian 12 with the real program, in the release that can be had without a registry.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from inference_server.triton.pip_package import pytriton_folder
from tests.checkout import CHECKOUT
from tests.containers.engine import BRIDGE, Engine
from tests.containers.materials import Materials, triton_release
from tests.deploy.manifests import DEPLOY, HOW_TO, compose_file
from tests.deploy.tools import newest_nginx

WHEELS_PORT = 8765
SYSTEM = "stand-in/debian:12"
MONITORING_SYSTEM = "stand-in/monitoring:12"
# pip's release, older than 25.06, does not have this option, which the image passes.
_NEWER_OPTION = "--http-max-input-size="
_TRITON_WRAPPER = f"""
#include <string.h>
#include <unistd.h>
int main(int count, char **arguments) {{
    char **kept = arguments;
    for (char **each = arguments; *each; each++)
        if (strncmp(*each, "{_NEWER_OPTION}", {len(_NEWER_OPTION)})) *kept++ = *each;
    *kept = 0;
    execv("/opt/tritonserver/lib/tritonserver", arguments);
    return 127;
}}
"""
PIP_CONF = f"""[global]
no-index = true
find-links = http://{BRIDGE}:{WHEELS_PORT}/
trusted-host = {BRIDGE}
disable-pip-version-check = true
root-user-action = ignore
"""
# The real image's Python is not Debian's own, so pip may install into it.
_PYTHON311 = f"""FROM {SYSTEM}
COPY pip.conf /etc/pip.conf
RUN rm /usr/lib/python3.11/EXTERNALLY-MANAGED
"""
_TRITON = f"""FROM {SYSTEM}
COPY python /usr/local
COPY tritonserver /opt/tritonserver
COPY pip.conf /etc/pip.conf
RUN ln -sf python3.12 /usr/local/bin/python3 && ldconfig && useradd --uid 1000 triton-server
ENV LD_LIBRARY_PATH=/opt/tritonserver/lib
ENV PATH=/opt/tritonserver/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
"""
_NGINX = f"""FROM {SYSTEM}
COPY nginx /usr/sbin/nginx
RUN useradd --system --uid 101 nginx
USER 101
"""
# Debian's promtool does not know `check ready` yet.
_PROMTOOL = """#!/bin/sh
[ "$*" != "check ready" ] || exec wget -q --spider http://127.0.0.1:9090/-/ready
exec /usr/bin/promtool "$@"
"""
_PROMETHEUS = f"""FROM {MONITORING_SYSTEM}
COPY --chmod=755 promtool /usr/local/bin/
RUN install -d -o 65534 -g 65534 /prometheus
USER 65534
WORKDIR /prometheus
ENTRYPOINT ["prometheus"]
"""
_ALERTMANAGER = f"""FROM {MONITORING_SYSTEM}
RUN install -d -o 65534 -g 65534 /alertmanager
USER 65534
WORKDIR /alertmanager
ENTRYPOINT ["prometheus-alertmanager"]
"""
# It becomes healthy if Grafana's user can read Grafana's files, and write where Grafana does.
_NO_GRAFANA_PROGRAM = """#!/usr/bin/python3
import http.server, os, pathlib
for file in (
    os.environ["GF_SECURITY_ADMIN_PASSWORD__FILE"],
    "/var/lib/grafana/dashboards/dashboard.json",
    "/etc/grafana/provisioning/datasources/prometheus.yml",
    "/etc/grafana/provisioning/dashboards/classify.yml",
):
    assert pathlib.Path(file).read_text().strip(), file
pathlib.Path("/var/lib/grafana/grafana.db").touch()
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()
http.server.HTTPServer(("", 3000), Health).serve_forever()
"""
_WGET = """#!/usr/bin/python3
import sys, urllib.request
urllib.request.urlopen(sys.argv[-1])
"""
_NO_GRAFANA = f"""FROM {SYSTEM}
COPY --chmod=755 grafana wget /usr/bin/
RUN install -d -o 472 /var/lib/grafana
USER 472
ENTRYPOINT ["grafana"]
"""


@dataclass(frozen=True)
class _Recipe:
    """How an image is made.

    Attributes:
        what: What stands in for it, in words.
        dockerfile: Its Dockerfile.
        fill: Puts what the Dockerfile copies into a folder.
    """

    what: str
    dockerfile: str
    fill: Callable[[Path], object] = lambda context: None


@contextlib.contextmanager
def served_wheels(folder: Path) -> Iterator[None]:
    """Serve the wheels to builds, whose network leads nowhere else."""
    handler = functools.partial(_QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("", WHEELS_PORT), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Log nothing."""


def make_stand_ins(engine: Engine, materials: Materials) -> dict[str, str]:
    """Make all images.

    Returns:
        What stands in for each image.
    """
    for image, system in ((SYSTEM, "base"), (MONITORING_SYSTEM, "monitoring")):
        engine.docker("import", materials.systems[system], image)
    recipes = _recipes(materials)
    for name, recipe in recipes.items():
        with tempfile.TemporaryDirectory() as context:
            recipe.fill(Path(context))
            (Path(context) / "Dockerfile").write_text(recipe.dockerfile)
            engine.docker("build", "--quiet", "--tag", name, context)
    return {name: recipe.what for name, recipe in recipes.items()}


def _recipes(materials: Materials) -> dict[str, _Recipe]:
    (python,) = re.findall(r"^ARG PYTHON=(\S+)$", (DEPLOY / "Dockerfile.cpu").read_text(), re.MULTILINE)
    (alertmanager,) = re.findall(r"image: (\S+alertmanager:\S+)", (HOW_TO / "containers.md").read_text())
    services = compose_file()["services"]
    return {
        f"nvcr.io/nvidia/tritonserver:{triton_release()}": _Recipe(
            "pip's Triton 2.51 with CPython 3.12", _TRITON, functools.partial(_fill_triton, materials.python312)
        ),
        f"docker.io/library/python:{python}": _Recipe("Debian's CPython 3.11", _PYTHON311, _fill_pip),
        services["gateway"]["image"]: _Recipe(
            "nginx 1.31 from PyPI", _NGINX, lambda context: shutil.copy(newest_nginx(), context / "nginx")
        ),
        services["prometheus"]["image"]: _Recipe(
            "Debian's Prometheus 2.42", _PROMETHEUS, lambda context: (context / "promtool").write_text(_PROMTOOL)
        ),
        alertmanager: _Recipe("Debian's Alertmanager 0.25", _ALERTMANAGER),
        services["grafana"]["image"]: _Recipe(
            "no Grafana: a program that looks whether its files can be read", _NO_GRAFANA, _fill_no_grafana
        ),
    }


def _fill_pip(context: Path) -> None:
    (context / "pip.conf").write_text(PIP_CONF)


def _fill_no_grafana(context: Path) -> None:
    (context / "grafana").write_text(_NO_GRAFANA_PROGRAM)
    (context / "wget").write_text(_WGET)


def _fill_triton(python312: Path, context: Path) -> None:
    _fill_pip(context)
    _copy_python(python312, context / "python")
    pip, triton = pytriton_folder(), context / "tritonserver"
    shutil.copytree(pip.parent / "nvidia_pytriton.libs", triton / "lib")
    shutil.copy(pip / "tritonserver" / "bin" / "tritonserver", triton / "lib")
    backends = triton / "backends"
    shutil.copytree(pip / "tritonserver" / "backends" / "python", backends / "python")
    stub = shutil.copy(
        pip / "tritonserver" / "python_backend_stubs" / "3.12" / "triton_python_backend_stub", backends / "python"
    )
    Path(stub).chmod(0o755)
    ours = CHECKOUT / "server" / "inference_server" / "backends" / "onnxruntime"
    shutil.copytree(ours, backends / "onnxruntime", ignore=shutil.ignore_patterns("__pycache__"))
    (triton / "bin").mkdir()
    compile_ = ["gcc", "-static", "-x", "c", "-", "-o", str(triton / "bin" / "tritonserver")]
    subprocess.run(compile_, input=_TRITON_WRAPPER, text=True, check=True)


def _copy_python(prefix: Path, target: Path) -> None:
    """Copy a CPython 3.12 with pip, and with no other package."""
    ignored = shutil.ignore_patterns("__pycache__", "test", "tests", "*.a", "site-packages")
    shutil.copytree(prefix, target, ignore=ignored, symlinks=True)
    packages = Path("lib", "python3.12", "site-packages")
    for part in (prefix / packages).glob("pip*"):
        shutil.copytree(part, target / packages / part.name)
