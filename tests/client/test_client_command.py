"""The command line, as a user types it."""

import json
import re

import pytest
from click.testing import CliRunner
from stand_in import StandIn, echo, refusal, unused_port

from inference_client.__main__ import _table, main
from inference_client.version import __version__


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLASSIFY_API_KEY", raising=False)
    for name in ("a", "b", "bad", "long_name"):
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.fixture
def server():
    with StandIn() as running:
        yield running


def run(*arguments, **environment):
    return CliRunner(env=environment).invoke(main, list(map(str, arguments)), catch_exceptions=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ("-l", "a", "b", "-ip", "URL"),
        ("-ip", "URL", "-l", "a", "b"),
        ("--links", "a", "b", "--server_ip", "URL"),
        ("-l", "a", "-l", "b", "-ip", "URL"),
        ("-l", "a", "--sim_thres", "-0.5", "--links", "b", "-ip", "URL"),
        ("--links=a", "b", "--server_ip=URL"),
        ("-ip", "URL", "-l", "--", "a", "b"),
    ],
    ids=" ".join,
)
def test_images_are_classified_in_the_order_given(arguments, files, server):
    result = run(*[argument.replace("URL", server.url) for argument in arguments])
    assert result.exit_code == 0
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:]] == [["a", "a"], ["b", "b"]]
    assert result.stderr == ""


def test_table_without_a_base_set_has_three_columns(files, server):
    result = run("-l", "a", "long_name", "-ip", server.url)
    assert result.stdout == (
        "file       label      probability\na          a          0.5000\nlong_name  long_name  0.5000\n"
    )


def test_table_shows_the_nearest_base_image_and_why_an_image_has_no_result(files, server):
    server.answer = lambda request: echo(request, neighbors=("x/1.jpg", "x/2.jpg"))
    result = run("-l", "a", "bad", "-ip", server.url)
    assert result.stdout == (
        "file  label  probability  matches  nearest base image\n"
        "a     a      0.5000       1        x/1.jpg (0.7500)\n"
        "bad   no result: bad is no image\n"
    )
    assert result.exit_code == 1
    assert result.stderr == "Error: 1 of 2 images have no result (status 207).\n"


def test_file_name_that_begins_with_a_dash_is_taken_after_two(files, server):
    (files / "-b.png").write_text("b")
    result = run("-ip", server.url, "-l", "a", "--", "-b.png")
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:]] == [["a", "a"], ["-b.png", "b"]]


def test_json_has_the_status_and_the_evidence(files, server):
    result = run("-l", "a", "bad", "-ip", server.url, "--json")
    report = json.loads(result.stdout)
    assert report["status_code"] == 207
    assert report["results"] == [
        {
            "Image": "a",
            "Label": "a",
            "Probability": 0.5,
            "Scores": {"a": 0.25, "ä": 0.5},
            "Matches": {},
            "Neighbors": [],
            "Version": 3,
            "Threshold": None,
        },
        {"Image": "bad", "Label": None, "Probability": None, "Error": "bad is no image"},
    ]
    assert result.exit_code == 1


@pytest.mark.parametrize("as_json", [False, True])
def test_failure_is_readable_on_stderr_and_exits_with_1(as_json, files):
    url = f"http://127.0.0.1:{unused_port()}"
    result = run("-l", "a", "-ip", url, *["--json"] * as_json)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {url} refused the connection.")
    assert result.stderr.endswith("(status 503)\n")
    if as_json:
        report = json.loads(result.stdout)
        assert (report["status_code"], list(report["results"])) == (503, ["error"])
    else:
        assert result.stdout == ""


def test_options_reach_the_server(files, server):
    result = run("-l", "a", "-ip", server.url, "--sim_thres", "0.8", "--client_id", "me", "--api_key", "k")
    assert result.exit_code == 0
    _, request = server.requests
    assert request.body["parameters"]["sim_thres"] == "0.8"
    assert (request.headers["x-client-id"], request.headers["x-api-key"]) == ("me", "k")


def test_api_key_is_read_from_the_environment(files, server):
    assert run("-l", "a", "-ip", server.url, CLASSIFY_API_KEY="from env").exit_code == 0
    assert server.requests[0].headers["x-api-key"] == "from env"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("-l missing -ip h:1", "'missing' does not exist"),
        ("-l . -ip h:1", "folder '.' holds no images, but only other files: 4 without ending. Name a folder of images"),
        ("-ip h:1", "Missing option '-l'"),
        ("-l a", "Missing option '-ip'"),
        ("a -ip h:1", "'a' stands without an option: name images after -l, as in -l a"),
        ("-l https://h/a.jpg -ip h:1", "'https://h/a.jpg' is an address: download the image, and name its file"),
        ("-l a -ip http://h:1/v2", "the client adds /v2/ itself: give http://host:port"),
        ("-l a -ip http://me:key@h:1", "leave it out, and give --api_key instead"),
        (
            "-l a -ip h:1 --api_key é",
            "--api_key can't be sent as an HTTP header: it must be printable ASCII, without a "
            'line break, and not empty. From a file, --api_key "$(cat FILE)" leaves the line break out',
        ),
        ("-l -ip h:1", "needs at least one image"),
        ("-ip h:1 -l", "needs at least one image"),
        ("-l a -ip ftp://h:1", "give http://host:port"),
        ("-l a -ip h", "the port is missing"),
        ("-l a -ip h:1 --sim_thres nan", "not a finite number"),
        ("-l a -ip h:1 --sim_thres 1.5", "not in the range"),
        ("-l a -ip h:1 --sim_thres high", "not a valid float"),
        ("-l a -ip h:1 --timeout_s 0", "not in the range"),
        ("-l a -ip h:1 --timeout_s inf", "not a finite number"),
        ("-l a -ip h:1 --client_id é", "client_id"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_why(arguments, says, files):
    result = run(*arguments.split())
    assert result.exit_code == 2
    assert says.lower() in re.sub(r"\s+", " ", result.stderr).lower()
    assert result.stdout == ""


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_shows_examples_and_exit_status(option):
    result = run(option)
    assert result.exit_code == 0
    assert "IMG [IMG ...]" in result.stdout
    assert "classify -l a.jpg b.jpg -ip http://localhost:8080" in result.stdout
    assert "Exit status: 0" in result.stdout


def test_help_shows_its_examples_line_by_line():
    lines = run("-h").stdout.splitlines()
    assert "  Examples:" in lines
    assert "    classify -l a.jpg b.jpg -ip http://localhost:8080" in lines


def test_every_option_has_a_help_text():
    assert all(option.help for option in main.params)


def test_version_is_shown():
    assert run("--version").stdout.strip().endswith(__version__)


def test_long_list_shows_progress_on_stderr_only(files, server):
    result = run("-l", *["a"] * 40, "-ip", server.url)
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 41
    assert result.stderr == "Classifying: 40 of 40 (100 %)\n"


def test_file_name_that_is_no_text_is_shown_somehow(files, server):
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    (files / name).write_text("a")
    assert run("-l", name, "-ip", server.url).exit_code == 0
    report = json.loads(run("-l", name, "-ip", server.url, "--json").stdout)
    assert report["results"][0]["Image"] == name


def test_refusal_shows_the_servers_words(files, server):
    server.answer = lambda request: refusal(400, "sim_thres must be -1 to 1, not 7.0")
    result = run("-l", "a", "-ip", server.url)
    assert result.exit_code == 1
    assert "sim_thres must be -1 to 1, not 7.0" in result.stderr


@pytest.mark.parametrize("status", [401, 403])
def test_refused_key_is_named_as_the_commands_option(status, files, server):
    server.answer = lambda request: refusal(status, "no")
    result = run("-l", "a", "-ip", server.url)
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {server.url} answered {status}: no. Is the key in --api_key, or in the variable CLASSIFY_API_KEY, "
        f"right? (status {status})\n"
    )


def test_note_of_the_server_is_the_last_column_of_the_table():
    entry = {"Label": "a", "Probability": 0.5, "Neighbors": []}
    results = [{**entry, "Note": "turned"}, entry, {"Label": None, "Probability": None, "Error": "no image"}]
    assert list(_table(["a.jpg", "b.jpg", "c.jpg"], results)) == [
        "file   label  probability  note",
        "a.jpg  a      0.5000       turned",
        "b.jpg  a      0.5000",
        "c.jpg  no result: no image",
    ]
