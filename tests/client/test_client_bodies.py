"""The bodies of requests, which the client encodes and writes itself."""

import json

import numpy as np
import pytest
from stand_in import StandIn, config

from inference_client import Classify
from inference_client.bodies import PART_BYTES, encode_files, encode_tensors

OUTPUTS = ("ERROR", "LABEL")


@pytest.mark.parametrize(
    ("files", "parameters"),
    [
        pytest.param([b"one"], {}, id="one"),
        pytest.param([b"one", b"", b"\0three\0"], {}, id="several"),
        pytest.param([b"one"], {"sim_thres": "0.8"}, id="parameters"),
    ],
)
def test_files_are_encoded_as_tritonclient_encodes_them(files, parameters):
    ours = encode_files(files, OUTPUTS, parameters)
    theirs = encode_tensors({"IMAGE": np.array([[file] for file in files], dtype=np.object_)}, OUTPUTS, parameters)
    assert json.loads(ours.content[: ours.json_bytes]) == json.loads(theirs.content[: theirs.json_bytes])
    assert ours.content[ours.json_bytes :] == theirs.content[theirs.json_bytes :]


def test_files_that_are_written_in_many_parts_arrive_unchanged():
    texts = [letter * size for letter, size in (("a", 5 * PART_BYTES + 1), ("b", 1), ("c", PART_BYTES))]
    with StandIn(configuration=lambda request: config(4)) as server, Classify(server.url) as target_server:
        results, status_code = target_server([text.encode() for text in texts])
    assert status_code == 200
    assert [entry["Label"] for entry in results] == texts
    assert len(server.inferences) == 1
