"""What a request's parameters say: who sent it."""

from __future__ import annotations

import pytest

from inference_export.template import load_served_module

parameters = load_served_module("preprocess", "parameters")


@pytest.mark.parametrize(
    ("text", "client"),
    [
        pytest.param("", "unknown", id="none"),
        pytest.param('{"sim_thres": 0.5}', "unknown", id="no-id"),
        pytest.param('{"X-Client-Id": "ward 7"}', "ward 7", id="header"),
        pytest.param('{"x-client-id": "forged", "X-CLIENT-ID": "ward 7"}', "ward 7", id="body-then-header"),
        pytest.param('{"x-client-id": "a", "X-Client-Id": "b", "x-client-id": "ward 7"}', "ward 7", id="twice"),
        pytest.param('{"x-client-id": "' + "x" * 65 + '"}', "unusable", id="long"),
        pytest.param('{"x-client-id": "a\\nb"}', "unusable", id="line-feed"),
        pytest.param('{"x-client-id": "\\u00e4"}', "unusable", id="not-ascii"),
        pytest.param('{"x-client-id": ""}', "unusable", id="empty"),
        pytest.param('{"x-client-id": " "}', "unusable", id="blank"),
        pytest.param('{"x-client-id": "other"}', "unusable", id="reserved"),
        pytest.param('{"x-client-id": 7}', "7", id="number"),
    ],
)
def test_client_id_is_the_last_one_and_fit_to_be_a_label(text: str, client: str) -> None:
    assert parameters.client_id(text) == client


def test_clients_beyond_the_first_hundred_are_counted_as_others() -> None:
    known = parameters.KnownClients()
    labels = [known.label(f"client {number}") for number in range(1000)]
    assert labels[0] == "client 0"
    assert set(labels[parameters.MOST_CLIENTS :]) == {"other"}
    assert known.label("client 0") == "client 0"
    assert known.label("unknown") == "unknown"
