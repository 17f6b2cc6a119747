"""``--network``: a network of the user's own, from its module to the server's answers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from click.testing import CliRunner, Result
from PIL import Image

from examples.demonstration.data import list_part
from examples.own_network import network as example
from examples.own_network.train import read_images
from inference_client import Classify
from inference_export.command import main
from inference_export.errors import NetworkError
from inference_export.export_options import ExportOptions
from inference_export.network.source import fingerprint
from inference_export.repository.provenance import what_changed
from inference_export.repository.reading import read_export
from inference_server.triton.process import running_server
from tests.resources import write_faces, write_resources

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
EXAMPLE = "examples.own_network.network:SmallNetwork"
PLAIN = """
    import torch
    from torch import nn

    class Net(nn.Module):
        preprocessing = {"image_size": 32}

        def __init__(self, classes):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, stride=4)
            self.head = nn.Linear(4, classes)

        def forward(self, x):
            embedding = self.conv(x).mean((2, 3))
            return embedding, self.head(embedding)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("own_network")
    # In a process of its own, because it sets the number of PyTorch's threads.
    subprocess.run([sys.executable, "-m", "examples.own_network", "--out", out], cwd=ROOT, check=True)
    return out


@pytest.fixture(scope="module")
def outputs(trained: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Embeddings and probabilities of the base and the query images, by plain PyTorch."""
    network = example.SmallNetwork(2)
    network.load_state_dict(torch.load(trained / "resources" / "models" / "model_16", weights_only=True))
    network.eval()
    embedded = {}
    for part in ("base", "query"):
        with torch.inference_mode():
            embeddings, logits = network(read_images(list_part(trained / part)))
        embedded[part] = F.normalize(embeddings).numpy(), logits.softmax(1).numpy()
    return embedded


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with the test's own modules."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def _export(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def _write(path: Path, code: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(code), encoding="utf-8")


def _plain_state(classes: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, 3, 3),
        "conv.bias": torch.randn(4),
        "head.weight": torch.randn(classes, 4),
        "head.bias": torch.randn(classes),
    }


def _options(*arguments: object) -> ExportOptions:
    return ExportOptions(**main.make_context("export-repository", [str(argument) for argument in arguments]).params)


@pytest.mark.slow
def test_served_example_answers_as_pytorch_in_clustering_mode(
    trained: Path, outputs: dict[str, Any], tmp_path: Path
) -> None:
    result = _export(
        "-r",
        trained / "resources",
        "-data",
        trained / "base",
        "--network",
        EXAMPLE,
        "--model_repository",
        tmp_path / "m",
    )
    assert result.exit_code == 0, result.output
    assert f"{EXAMPLE}, embeddings of 96" in result.stdout
    assert "48 x 48" in result.stdout
    query = list_part(trained / "query")
    with running_server(tmp_path / "m", log=tmp_path / "log") as server, Classify(server.url, details=True) as classify:
        results, status_code = classify(query.files)
    assert status_code == 200
    similarities = outputs["query"][0] @ outputs["base"][0].T
    for entry, row in zip(results, similarities, strict=True):
        assert [neighbor["Similarity"] for neighbor in entry["Neighbors"]] == pytest.approx(
            sorted(row, reverse=True)[:5], abs=1e-4
        )
    right = [
        entry["Label"] == ("face", "not_face")[index] for entry, index in zip(results, query.class_indices, strict=True)
    ]
    assert np.mean(right) >= 0.9


@pytest.mark.slow
def test_served_example_answers_as_pytorch_in_classification_mode(
    trained: Path, outputs: dict[str, Any], tmp_path: Path
) -> None:
    repository = tmp_path / "m"
    arguments = ("-r", trained / "resources", "--network", EXAMPLE, "--model_repository", repository)
    assert _export(*arguments).exit_code == 0
    with running_server(repository, log=tmp_path / "log") as server, Classify(server.url, details=True) as classify:
        results, status_code = classify(list_part(trained / "query").files)
    assert status_code == 200
    probabilities = [[entry["Scores"][name] for name in ("face", "not_face")] for entry in results]
    assert np.array(probabilities) == pytest.approx(outputs["query"][1], abs=1e-4)

    script = (
        "import sys; from inference_server import command\n"
        "command.Watcher.run = lambda watcher: print('torch' in sys.modules, 'examples' in sys.modules)\n"
        "command.main()\n"
    )
    served = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert served.stdout.split() == ["False", "False"], "an up-to-date export is served without running the network"
    assert "exporting" not in served.stderr


@pytest.mark.parametrize(
    ("code", "says"),
    [
        pytest.param("import nowhere_at_all", "failed, ModuleNotFoundError: No module named 'nowhere", id="import"),
        pytest.param("class Net(:", "importing nets failed, SyntaxError", id="syntax"),
        pytest.param("torch = 7", "nets has no Net", id="no-factory"),
        pytest.param("Net = 7", "Net in nets is not callable", id="not-callable"),
        pytest.param("def Net(): pass", "Net(2) failed, TypeError", id="no-argument"),
        pytest.param("def Net(classes): return 7", "returned int, and must return a torch", id="no-network"),
        pytest.param(("4, classes)", "4, classes + 1)"), "has other shapes for head.weight, head.bias", id="shapes"),
        pytest.param(("4, classes)", "4, classes + 1)"), "head.weight is [2, 4] in the file, and [3, 4]", id="shape"),
        pytest.param(("self.conv", "self.stem"), "lacks stem.weight, stem.bias; it has unknown conv.weight", id="keys"),
        pytest.param(("embedding, self", "self"), "returns Tensor, and must return the pair", id="one"),
        pytest.param((".mean((2, 3))", ".mean(3)"), "failed on 1 image, float32 [1, 3, 32, 32]", id="fails"),
        pytest.param(("return embedding,", "return self.conv(x),"), "embedding of shape [1, 4, 8, 8]", id="rank"),
        pytest.param(("return embedding,", "return embedding[0],"), "embedding of shape [4] for 1 image", id="row"),
        pytest.param(("self.head(embedding)", "embedding"), "4 logits an image, and labels names 2", id="logits"),
        pytest.param(("return embedding,", "return embedding.long(),"), "must return a float tensor", id="integers"),
        pytest.param(("3))", "3)) - self.conv(x).mean((0, 2, 3))"), "depend on that image only", id="batch-values"),
        pytest.param(("conv(x)", "conv(x.view(1, 3, 32, 32))"), "failed on 3 images", id="batch-shape"),
        pytest.param(("return embedding,", "return embedding / 0,"), "values that are not finite", id="infinite"),
        pytest.param(("return", "if x[0, 0, 0, 0] > 9: x = -x\n            return"), "can't export", id="condition"),
        pytest.param(('{"image_size": 32}', "7"), "preprocessing is int, and must be a mapping", id="no-mapping"),
        pytest.param(('"image_size"', '"size"'), "preprocessing has unknown size", id="unknown-key"),
        pytest.param(("32}", "8}"), "image_size 8, and needs a whole number of 32 to 2048", id="size"),
        pytest.param(("32}", '32, "mean": (0.5, 0.5)}'), "mean (0.5, 0.5), and needs three", id="mean"),
        pytest.param(("32}", '32, "std": (1, 1, float("nan"))}'), "needs three numbers of 1e-06", id="std-nan"),
        pytest.param(("32}", '32, "std": (1, 0, 1)}'), "needs three numbers of 1e-06 to 1e+06", id="std-zero"),
        pytest.param(("32}", '32, "std": (1, 1e-46, 1)}'), "needs three numbers of 1e-06 to 1e+06", id="std-tiny"),
        pytest.param(("32}", '32, "mean": (123.7, 116.3, 103.5)}'), "blue values of 0 to 1", id="mean-of-bytes"),
        pytest.param(("32}", '32, "mean": (10**400, 0, 0)}'), "needs three numbers of -10 to 10", id="mean-huge"),
        pytest.param(("32}", '32, "mean": (10**5000, 0, 0)}'), "preprocessing failed, ValueError", id="mean-huger"),
        pytest.param(
            ('preprocessing = {"image_size": 32}', "preprocessing = property(lambda self: 1 / 0)"),
            "reading its attribute preprocessing failed, ZeroDivisionError", id="property",
        ),
        pytest.param(
            ('preprocessing = {"image_size": 32}', "preprocessing = property(lambda self: self.absent)"),
            "reading its attribute preprocessing failed, AttributeError", id="property-attribute",
        ),
        pytest.param(("def forward", "def eval(self): 1 / 0\n    def forward"), "evaluation mode failed", id="eval"),
        pytest.param(
            ("def forward", "def load_state_dict(self, state): 1 / 0\n    def forward"),
            "loading trained/models/model_1 into the network failed, ZeroDivisionError", id="load",
        ),
        pytest.param("import sys; sys.exit(0)", "importing nets failed, it would end this", id="exit-import"),
        pytest.param("from sys import exit as Net", "Net(2) failed, it would end this program (Sys", id="exit-factory"),
        pytest.param(("return emb", "raise SystemExit\n            return emb"), "on 1 image", id="exit-forward"),
        pytest.param(
            ("return emb", "if torch.compiler.is_exporting(): raise SystemExit\n            return emb"),
            "can't export this network to ONNX: it would end this program (SystemExit)", id="exit-export",
        ),
        pytest.param(
            ("def forward", "def train(self, mode=True): raise SystemExit(0)\n    def forward"),
            "evaluation mode failed, it would end this program (SystemExit: 0)", id="exit-train",
        ),
    ],
)  # fmt: skip
def test_network_that_cannot_be_served_is_refused_with_the_reason(
    here: Path, code: str | tuple[str, str], says: str
) -> None:
    _write(here / "nets.py", code if isinstance(code, str) else PLAIN.replace(*code))
    write_resources(here / "trained", {"model_1": _plain_state()}, {"a": 0, "b": 1})
    result = _export("-r", "trained", "--network", "nets:Net", "--model_repository", "out")
    assert result.exit_code == 1
    assert says in result.stderr
    assert "Traceback" not in result.output
    assert not (here / "out").exists()


def test_embeddings_of_zeros_are_refused_where_the_base_set_is_what_answers(here: Path) -> None:
    _write(here / "nets.py", PLAIN.replace("return embedding,", "return embedding * 0,"))
    write_resources(here / "trained", {"model_1": _plain_state()}, {"a": 0, "b": 1})
    for name in ("a", "b"):
        write_faces(here / "base" / name, [1, 2], "x")
    arguments = ("-r", "trained", "--network", "nets:Net", "--model_repository", "out")
    result = _export(*arguments, "-data", "base")
    assert result.exit_code == 1
    assert "gives every base image an embedding of zeros" in result.stderr
    assert not (here / "out").exists()


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        pytest.param("raise KeyboardInterrupt", 1, id="ctrl-c"),
        pytest.param("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", 143, id="sigterm"),
    ],
)
def test_stopping_the_export_while_the_network_runs_is_no_failure_of_the_network(
    here: Path, code: str, exit_code: int
) -> None:
    _write(here / "nets.py", code)
    write_resources(here / "trained", {"model_1": _plain_state()}, {"a": 0, "b": 1})
    result = _export("-r", "trained", "--network", "nets:Net", "--model_repository", "out")
    assert result.exit_code == exit_code
    assert "--network" not in result.output
    assert not (here / "out").exists()


@pytest.mark.parametrize("name", ["absent:Net", "absent.nets:Net", "nets.inner:Net"])
def test_module_that_is_not_there_is_named_before_any_code_runs(here: Path, name: str) -> None:
    _write(here / "nets.py", "raise SystemExit('ran')")
    write_resources(here / "trained", {"model_1": _plain_state()}, {"a": 0, "b": 1})
    result = _export("-r", "trained", "--network", name)
    assert result.exit_code == 1
    assert f"there is no module {name.partition(':')[0]}, neither here ({here})" in result.stderr


@pytest.mark.parametrize(
    ("name", "guess"),
    [
        ("nets.Net", ""),
        ("nets.py:Net", "nets:Net"),
        ("./my/nets.py:Net", "my.nets:Net"),
        ("my/nets:Net", "my.nets:Net"),
    ],
)
def test_malformed_name_is_wrong_usage_and_the_name_that_was_meant_is_guessed(
    tmp_path: Path, name: str, guess: str
) -> None:
    result = _export("-r", tmp_path, "--network", name)
    assert result.exit_code == 2
    assert "must be of the form package.module:factory" in result.stderr
    assert result.stderr.partition("Did you mean ")[2].partition("?")[0] == guess


def test_size_mean_and_std_of_the_network_are_those_of_the_exported_graph(here: Path) -> None:
    _write(here / "nets.py", PLAIN.replace("32}", '36, "mean": (0.1, 0.2, 0.3), "std": (0.5, 1, 2)}'))
    state = _plain_state()
    write_resources(here / "trained", {"model_1": state}, {"a": 0, "b": 1})
    images = write_faces(here / "base" / "a", [1, 2], "x") + write_faces(here / "base" / "b", [101], "x")
    arguments = ("-r", "trained", "-data", "base", "--model_repository", "out")
    assert _export(*arguments, "--network", "nets:Net").exit_code == 0

    opened = [Image.open(file).convert("RGB").resize((36, 36), Image.Resampling.BILINEAR) for file in images]
    normalized = (
        np.stack([np.array(image) for image in opened]).transpose(0, 3, 1, 2) / 255
        - np.reshape([0.1, 0.2, 0.3], (3, 1, 1))
    ) / np.reshape([0.5, 1, 2], (3, 1, 1))
    convolved = F.conv2d(torch.from_numpy(normalized).float(), state["conv.weight"], state["conv.bias"], stride=4)
    expected = F.normalize(convolved.mean((2, 3))).numpy()
    assert np.load(here / "out" / "cluster_head" / "1" / "base_embeddings.npy") == pytest.approx(expected, abs=1e-5)

    export = read_export(here / "out")
    assert export is not None
    assert what_changed(export.provenance, _options(*arguments, "--network", "nets:Net")) == []
    assert what_changed(export.provenance, _options(*arguments)) == ["network"]
    assert what_changed(export.provenance, _options(*arguments, "--network", "nets:Net", "--image_size", 40)) == [
        "options"
    ]
    source = (here / "nets.py").read_text()
    _write(here / "nets.py", source.replace("0.1, 0.2", "0.1, 0.25"))
    assert what_changed(export.provenance, _options(*arguments, "--network", "nets:Net")) == ["network"]


SOURCES = (
    "nets/__init__.py",
    "nets/model.py",
    "nets/deep/inner.py",  # without __init__.py
    "beside.py",
    "layers/conv.py",
)


def test_fingerprint_covers_every_source_file_that_the_network_may_import_from_here(here: Path) -> None:
    for file in SOURCES:
        _write(here / file, "raise SystemExit('a fingerprint runs nothing')")
    before = fingerprint("nets.model:make")
    moved = here.with_name("moved")
    shutil.copytree(here, moved)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(moved)
        assert fingerprint("nets.model:make") == before
    seen = [before]
    for file in SOURCES:
        with (here / file).open("a") as opened:
            opened.write("\n# changed\n")
        seen.append(fingerprint("nets.model:make"))
    _write(here / "nets" / "deep" / "new.py", "")
    seen.append(fingerprint("nets.model:make"))
    (here / "beside.py").rename(here / "renamed.py")
    seen.append(fingerprint("nets.model:make"))
    assert len(set(seen)) == len(SOURCES) + 3


def test_fingerprint_leaves_out_what_no_network_imports(here: Path) -> None:
    _write(here / "nets" / "model.py", "")
    before = fingerprint("nets.model:make")
    for file in ("nets/notes.txt", ".hidden/code.py", "venv/pyvenv.cfg", "venv/activate_this.py", "data/deep/code.py"):
        _write(here / file, "")
    os.mkfifo(here / "data" / "pipe")
    assert fingerprint("nets.model:make") == before


def test_fingerprint_of_an_installed_network_covers_its_package_alone(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = here / "site-packages"
    for file in ("nets/model.py", "single.py", "other/__init__.py"):
        _write(site / file, "")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(sysconfig, "get_path", lambda kind: str(site))
    before = fingerprint("nets.model:make"), fingerprint("single:make")
    _write(site / "other" / "__init__.py", "# changed")
    assert (fingerprint("nets.model:make"), fingerprint("single:make")) == before
    _write(site / "nets" / "model.py", "# changed")
    _write(site / "single.py", "# changed")
    assert fingerprint("nets.model:make") != before[0]
    assert fingerprint("single:make") != before[1]


def test_network_in_a_module_without_source_is_refused() -> None:
    with pytest.raises(NetworkError, match=r"sys is not Python source\. Name the module that holds the factory"):
        fingerprint("sys:exit")
