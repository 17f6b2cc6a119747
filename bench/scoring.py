"""Compares scoring against a large base set with the bare matrix product, its lower bound."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench.decoding import shortest_s
from bench.report import Figure, Report
from bench.setting import Setting
from inference_export.template import load_served_module

EMBEDDING_SIZE = 512
BATCH = 8
BASE_IMAGES = (100_000, 1_000_000)
QUICK_BASE_IMAGES = (100_000,)
CLASSES = (2, 1000)
PRODUCT_BLOCKS = (1024, 2048, 4096, 8192, 16384)
REPETITIONS = 5
THRESHOLD = 0.1  # about one in a hundred random embeddings reaches it
_CHUNK = 50_000


def bench_scoring(setting: Setting, report: Report, *, quick: bool) -> None:
    """Measure the model's own code, including evidence, on a memory-mapped base set of random embeddings."""
    for base_images in QUICK_BASE_IMAGES if quick else BASE_IMAGES:
        folder = setting.folder / f"base-{base_images}"
        _write_embeddings(folder, base_images)
        for classes in CLASSES:
            _write_classes(folder, base_images, classes)
            measured = _in_process(folder, max(3, setting.rounds))
            name = f"{base_images:,} base images, {classes:,} classes"
            report.figures.append(
                Figure(
                    name=f"cluster_head, {name} / matrix product",
                    values=measured["ratios"],
                    at_most=1.1,
                    notes=[
                        f"{measured['answer_ms']:.1f} ms for {BATCH} queries, product {measured['product_ms']:.1f} ms"
                    ],
                )
            )
            report.figures.append(
                Figure(
                    name=f"cluster_head, {name}, memory beyond the file",
                    values=[measured["memory_mb"]],
                    unit="MB",
                    at_most=300 if base_images == max(BASE_IMAGES) else None,
                )
            )
        shutil.rmtree(folder)


def _write_embeddings(folder: Path, base_images: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
        folder / "base_embeddings.npy", "w+", np.float32, (base_images, EMBEDDING_SIZE)
    )
    for start in range(0, base_images, _CHUNK):
        chunk = rng.standard_normal((min(_CHUNK, base_images - start), EMBEDDING_SIZE), dtype=np.float32)
        rows[start : start + len(chunk)] = chunk / np.linalg.norm(chunk, axis=1, keepdims=True)
    rows.flush()


def _write_classes(folder: Path, base_images: int, classes: int) -> None:
    sizes = [base_images // classes] * classes
    (folder / "base_class_sizes.json").write_text(json.dumps(sizes))
    with (folder / "base_images.txt").open("w") as names:
        for number, size in enumerate(sizes):
            names.writelines(f"class_{number:04}/image_{row:07}.jpg\n" for row in range(size))
    settings = {
        "mode": "clustering",
        "classes": [f"class_{number:04}" for number in range(classes)],
        "threshold": THRESHOLD,
        "unknown_label": None,
        "neighbors": 5,
    }
    (folder / "settings.json").write_text(json.dumps(settings))


def _in_process(folder: Path, rounds: int) -> dict[str, Any]:
    # A fresh process holds no memory but the model's.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (folder, rounds))


def _measure(folder: Path, rounds: int) -> dict[str, Any]:
    heads = load_served_module("cluster_head", "heads")
    set_blas_threads = load_served_module("cluster_head", "blas_threads").set_blas_threads
    before_bytes = psutil.Process().memory_full_info().uss
    head = heads.load_head(folder)
    rng = np.random.default_rng(1)
    queries = rng.standard_normal((BATCH, EMBEDDING_SIZE), dtype=np.float32)
    probabilities = np.zeros((BATCH, 2), np.float32)
    thresholds = np.full(BATCH, THRESHOLD, np.float32)

    def answer() -> None:
        head.answer(queries, probabilities, thresholds)

    set_blas_threads(1)  # as the model does
    answer()
    # Without the pages of the file, which the system can take back.
    memory_mb = (psutil.Process().memory_full_info().uss - _mapped_bytes(folder) - before_bytes) / 1e6
    base = np.asarray(np.load(folder / "base_embeddings.npy", mmap_mode="r"))
    unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    ratios, answers_s, products_s = [], [], []
    for _ in range(rounds):
        set_blas_threads(len(os.sched_getaffinity(0)))
        product_s = min(
            shortest_s(lambda: unit @ base.T, REPETITIONS),
            *(shortest_s(partial(_blocked, unit, base, size), REPETITIONS) for size in PRODUCT_BLOCKS),
        )
        set_blas_threads(1)
        answer_s = shortest_s(answer, REPETITIONS)
        ratios.append(answer_s / product_s)
        answers_s.append(answer_s)
        products_s.append(product_s)
    return {
        "ratios": ratios,
        "answer_ms": min(answers_s) * 1e3,
        "product_ms": min(products_s) * 1e3,
        "memory_mb": max(0.0, memory_mb),
    }


def _mapped_bytes(folder: Path) -> int:
    maps = psutil.Process().memory_maps()
    path = str(folder.resolve())
    return sum(region.private_clean + region.private_dirty for region in maps if region.path.startswith(path))


def _blocked(unit: Any, base: Any, size: int) -> None:
    for start in range(0, len(base), size):
        unit @ base[start : start + size].T
