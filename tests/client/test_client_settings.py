"""The server addresses that Classify accepts, and the headers of its requests."""

import pytest
from stand_in import StandIn, unused_port

from inference_client import Classify
from inference_client.settings import read_settings

PLAIN = {"timeout_s": 60, "connect_timeout_s": 5, "client_id": None, "api_key": None}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://172.17.0.2:8080", "http://172.17.0.2:8080"),
        ("HTTP://Host:8080/", "http://host:8080"),
        ("localhost:8080", "http://localhost:8080"),
        ("https://host", "https://host:443"),
        ("http://host", "http://host:80"),
        ("https://host:8443/triton/a/", "https://host:8443/triton/a"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        (" host:1//base ", "http://host:1/base"),
    ],
)
def test_url_is_accepted_in_every_documented_form(url, shown):
    assert read_settings(url, **PLAIN).url == shown


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "8080",
        "ftp://host:80",
        "http://",
        "http://:8080",
        "http://host:eighty",
        "http://host:0",
        "http://host:70000",
        "http://my host:80",
        "http://host:80/a b",
        "http://host:80/?model=a",
        "http://host:80/#a",
        "http://user:secret@host:80",
        "http://[::1:80",
        "http//host:80",
        "host:80\r\nX: y",
    ],
)
def test_bad_url_is_refused_with_an_example_of_a_good_one(url):
    with pytest.raises(ValueError, match=r"http://host:port|api_key=") as raised:
        Classify(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("name", ["timeout_s", "connect_timeout_s"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "soon"])
def test_timeout_that_is_not_finite_and_positive_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} is .*greater than 0"):
        Classify("localhost:8080", **{name: value})


@pytest.mark.parametrize("name", ["client_id", "api_key"])
@pytest.mark.parametrize("value", ["a\r\nX-Other: b", "a\n", "ключ", "naïve", "a\0b", ""])
def test_value_that_no_header_can_carry_is_refused_without_showing_it(name, value):
    with pytest.raises(ValueError, match=name) as raised:
        Classify("localhost:8080", **{name: value})
    assert not value or value not in str(raised.value)


def test_threshold_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="sim_thres is 'high'"):
        Classify("localhost:8080", sim_thres="high")


def test_constructor_opens_no_connection():
    with Classify(f"127.0.0.1:{unused_port()}") as target_server:
        assert target_server([]) == ([], 200)


def test_client_id_and_api_key_go_with_every_request():
    with StandIn() as server, Classify(server.url, client_id="ward 7", api_key="s3cret") as target_server:
        assert target_server([b"a", b"b"])[1] == 200
    assert [request.method for request in server.requests] == ["GET", "POST"]
    assert [request.path for request in server.requests] == [
        "/v2/models/ensemble/config",
        "/v2/models/ensemble/infer",
    ]
    for request in server.requests:
        assert (request.headers["x-client-id"], request.headers["x-api-key"]) == ("ward 7", "s3cret")


def test_base_path_goes_before_every_request():
    with StandIn() as server, Classify(f"{server.url}/triton/") as target_server:
        assert target_server([b"a", b"b"])[1] == 200
    assert {request.path.partition("/v2")[0] for request in server.requests} == {"/triton"}


@pytest.mark.parametrize(
    ("constructed", "called", "sent"),
    [
        (None, None, None),
        (0.8, None, "0.8"),
        (0.8, 0.25, "0.25"),
        (None, float("nan"), "nan"),
        (None, 7, "7.0"),
        (None, 0, "0.0"),
    ],
)
def test_threshold_is_sent_as_text_and_the_calls_own_wins(constructed, called, sent):
    with StandIn() as server, Classify(server.url, sim_thres=constructed) as target_server:
        assert target_server(b"a", sim_thres=called)[1] == 200
    parameters = server.inferences[0].body.get("parameters", {})
    assert parameters.get("sim_thres") == sent
