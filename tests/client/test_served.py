"""Classify against a real Triton with an exported repository."""

import asyncio
import io
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from inference_client import AsyncClassify, Classify

NOT_AN_IMAGE = b"not an image"
# The last bits of similarities depend on the batch size.
TOLERANCE = 1e-4


@pytest.fixture
def target_server(clustering_server):
    with Classify(clustering_server.url) as running:
        yield running


@pytest.fixture(scope="module")
def alone(clustering_server, query_images):
    """Return the entry, with details, of each image sent alone."""
    with Classify(clustering_server.url, details=True) as running:
        answers = [running(image) for image in query_images]
    assert {status_code for _, status_code in answers} == {200}
    return [results[0] for results, _ in answers]


def assert_same(entries, expected):
    assert len(entries) == len(expected)
    for entry, same in zip(entries, expected, strict=True):
        assert entry["Label"] == same["Label"]
        assert entry["Probability"] == pytest.approx(same["Probability"], abs=TOLERANCE)


def test_every_image_classified_is_200_in_the_order_given(target_server, query_images, alone):
    results, status_code = target_server(query_images)
    assert status_code == 200
    assert_same(results, alone)
    assert all(set(entry) == {"Label", "Probability"} for entry in results)
    results, status_code = target_server(list(reversed(query_images)))
    assert_same(results, alone[::-1])


def test_asyncio_gives_the_same_results(clustering_server, query_images, alone):
    async def ask():
        async with AsyncClassify(clustering_server.url, details=True) as asynchronous:
            answer = await asynchronous(query_images)
            return answer, [entry async for entry in asynchronous.stream(query_images)]

    (results, status_code), streamed = asyncio.run(ask())
    assert status_code == 200
    assert_same(results, alone)
    assert_same(streamed, alone)
    assert [entry["Neighbors"][0]["Image"] for entry in results] == [entry["Neighbors"][0]["Image"] for entry in alone]


def test_one_path_gives_a_list_of_one(target_server, query_images, alone):
    results, status_code = target_server(str(query_images[0]))
    assert status_code == 200
    assert_same(results, alone[:1])


def test_undecodable_image_in_a_list_is_207_and_leaves_the_others_classified(target_server, query_images, alone):
    results, status_code = target_server([query_images[0], NOT_AN_IMAGE, query_images[1]])
    assert status_code == 207
    assert_same([results[0], results[2]], alone[:2])
    assert (results[1]["Label"], results[1]["Probability"]) == (None, None)
    assert results[1]["Error"]


@pytest.mark.parametrize("images", [NOT_AN_IMAGE, [NOT_AN_IMAGE, b""], [NOT_AN_IMAGE] * 40], ids=["1", "2", "40"])
def test_nothing_but_undecodable_images_is_400_with_every_reason(target_server, images):
    results, status_code = target_server(images)
    assert status_code == 400
    assert len(results) == (1 if isinstance(images, bytes) else len(images))
    for entry in results:
        assert (entry["Label"], entry["Probability"]) == (None, None)
        assert entry["Error"]


@pytest.mark.parametrize("sim_thres", [7, -1.5, float("nan"), float("inf")])
def test_threshold_out_of_range_is_400_with_the_servers_words(target_server, query_images, sim_thres):
    results, status_code = target_server(query_images[:2], sim_thres=sim_thres)
    assert status_code == 400
    assert list(results) == ["error"]
    assert "sim_thres" in results["error"]


def test_wrong_base_path_is_404_with_a_remedy(clustering_server, query_images):
    with Classify(f"{clustering_server.url}/elsewhere") as lost:
        results, status_code = lost(query_images[:2])
    assert status_code == 404
    assert "the url's path right" in results["error"]


def test_empty_list_is_200(target_server):
    assert target_server([]) == ([], 200)


def test_threshold_of_the_call_decides_the_matches(target_server, query_images):
    (loose,), _ = target_server(query_images[0], sim_thres=-1, details=True)
    (strict,), _ = target_server(query_images[0], sim_thres=1, details=True)
    assert all(count > 0 for count in loose["Matches"].values())
    assert sum(strict["Matches"].values()) < sum(loose["Matches"].values())
    assert strict["Scores"] == pytest.approx(loose["Scores"], abs=TOLERANCE)
    assert (loose["Threshold"], strict["Threshold"]) == (-1, 1)


def test_details_name_every_class_and_the_nearest_base_images(alone):
    for entry in alone:
        assert entry["Label"] in entry["Scores"]
        assert entry["Probability"] == pytest.approx(entry["Scores"][entry["Label"]], abs=TOLERANCE)
        assert list(entry["Scores"]) == list(entry["Matches"]) == sorted(entry["Scores"])
        assert (entry["Version"], entry["Threshold"]) == (1, 0.4)
        similarities = [neighbor["Similarity"] for neighbor in entry["Neighbors"]]
        assert similarities == sorted(similarities, reverse=True)
        assert similarities[0] == pytest.approx(max(entry["Scores"].values()), abs=TOLERANCE)
        for neighbor in entry["Neighbors"]:
            assert neighbor["Image"].partition("/")[0] in entry["Scores"]


def test_bytes_pil_images_and_arrays_are_classified_as_their_file(target_server, query_images, alone):
    for file, expected in zip(query_images[:4], alone, strict=False):
        with Image.open(file) as image:
            image.load()
            rgb = np.asarray(image.convert("RGB"))
            results, status_code = target_server([file, str(file), file.read_bytes(), image, rgb])
        assert status_code == 200
        assert_same(results, [expected] * 5)


def test_jpeg_larger_than_a_request_is_classified(target_server, query_images, alone):
    large = query_images[0].read_bytes() + bytes(33 * 2**20)  # decoders stop at the end of the image
    results, status_code = target_server([query_images[1], large, query_images[2]])
    assert status_code == 200
    assert_same(results, [alone[1], alone[0], alone[2]])


def test_thousand_images_keep_their_order(target_server, query_images, alone):
    numbers = [index * 7 % len(query_images) for index in range(1000)]
    finished = []
    results, status_code = target_server([query_images[number] for number in numbers], progress=finished.append)
    assert status_code == 200
    assert sum(finished) == 1000
    assert_same(results, [alone[number] for number in numbers])


def test_sixteen_threads_on_one_client_get_their_own_answers(target_server, query_images, alone):
    def call(thread):
        shift = thread % len(query_images)
        images = [*query_images[shift:], *query_images[:shift]]
        return shift, target_server(images[0] if thread % 2 else images)

    with ThreadPoolExecutor(16) as threads:
        for shift, (results, status_code) in threads.map(call, range(16)):
            assert status_code == 200
            assert_same(results, [*alone[shift:], *alone[:shift]][: len(results)])


def test_client_id_is_accepted(clustering_server, query_images):
    with Classify(clustering_server.url, client_id="tests") as named:
        assert named(query_images[0])[1] == 200


def test_command_line_prints_the_labels(clustering_server, query_images, alone):
    files = list(map(str, query_images[:3]))
    command = [sys.executable, "-m", "inference_client", "-ip", clustering_server.url, "-l", *files]
    table = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (table.returncode, table.stderr) == (0, "")
    assert [line.split()[1] for line in table.stdout.splitlines()[1:]] == [entry["Label"] for entry in alone[:3]]
    report = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120, check=False)
    entries = json.loads(report.stdout)["results"]
    assert_same(entries, alone[:3])
    assert [entry["Image"] for entry in entries] == files


def test_pixels_of_odd_modes_are_classified(target_server, query_images):
    with Image.open(query_images[0]) as image:
        variants = [image.convert(mode) for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F")]
    results, status_code = target_server(variants)
    assert status_code == 200, results
    file = io.BytesIO()
    variants[3].save(file, format="BMP")
    assert target_server(file.getvalue())[1] == 200
