"""A request's parameters: its client and its threshold."""

from __future__ import annotations

import pytest

from inference_export.template import load_served_module

parameters = load_served_module("preprocess", "parameters")


class Request:
    """A request as Triton passes it to a model."""

    def __init__(self, text: str | bytes, request_id: bytes = b"") -> None:
        self._text, self._id = text if isinstance(text, bytes) else text.encode(), request_id

    def parameters(self) -> str:
        return self._text.decode()

    def request_id(self) -> str:
        return self._id.decode()


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
    assert parameters.read_parameters(Request(text)).client == client


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param('{"sim_thres": 0.5}', 0.5, id="number"),
        pytest.param('{"sim_thres": "-1"}', -1.0, id="text"),
        pytest.param('{"sim_thres": 1}', 1.0, id="integer"),
    ],
)
def test_threshold_of_a_request_is_given(text: str, value: float) -> None:
    assert parameters.read_parameters(Request(text)).threshold == parameters.Given(value)


@pytest.mark.parametrize("text", ["", "{}", '{"x-client-id": "ward 7"}'])
def test_request_without_a_threshold_says_so(text: str) -> None:
    threshold = parameters.read_parameters(Request(text)).threshold
    assert isinstance(threshold, parameters.NotGiven)


@pytest.mark.parametrize("value", ["1.01", "-2", '"NaN"', '"inf"', "true", '"high"', '""', "1" + "0" * 400])
def test_unusable_threshold_is_invalid_and_the_client_is_known_all_the_same(value: str) -> None:
    said = parameters.read_parameters(Request(f'{{"sim_thres": {value}, "X-Client-Id": "ward 7"}}'))
    assert said.client == "ward 7"
    assert said.threshold.code == "threshold"
    assert "must be a number from -1 to 1" in said.threshold.message


def test_parameters_that_are_no_text_are_invalid() -> None:
    said = parameters.read_parameters(Request(b"\xff", b"\xff"))
    assert (said.client, said.request_id, said.threshold.code) == ("unusable", "", "not_text")


def test_clients_beyond_the_first_hundred_are_counted_as_others() -> None:
    known = parameters.KnownClients()
    labels = [known.label(f"client {number}") for number in range(1000)]
    assert labels[0] == "client 0"
    assert set(labels[parameters.MOST_CLIENTS :]) == {"other"}
    assert known.label("client 0") == "client 0"
    assert known.label("unknown") == "unknown"
