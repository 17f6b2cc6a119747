"""The manifests of ``deploy/`` as kubectl would send them."""

from __future__ import annotations

import pytest

from tests.deploy.manifests import INFERENCE_SERVICE, KUBERNETES, OVERLAYS, UPLOAD, Manifest, kubectl, manifest, render


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Manifest]]:
    """The manifests that ``kubectl apply -k`` would send for each overlay, and those that stand alone."""
    command = kubectl(tmp_path_factory.mktemp("kubectl"))
    overlays = {name: render(command, KUBERNETES / name) for name in OVERLAYS}
    return {**overlays, "by hand": [manifest(UPLOAD)], "kserve": [manifest(INFERENCE_SERVICE)]}


@pytest.fixture(scope="session", params=["volume", "object-store", "gpu"])
def overlay(request: pytest.FixtureRequest, rendered: dict[str, list[Manifest]]) -> list[Manifest]:
    """The manifests of an overlay with a server."""
    manifests: list[Manifest] = rendered[request.param]
    return manifests
