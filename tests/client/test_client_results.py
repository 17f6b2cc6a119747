"""Results that ``classify`` writes as they come: CSV, JSON Lines and Parquet, and going on after a break."""

import csv
import json
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from pyarrow import parquet
from stand_in import Reply, StandIn, echo, refusal

from inference_client.__main__ import main
from inference_client.command_line import extras
from inference_client.command_line.results.encoding import Csv

COMMON = "file,label,probability,error,note,version,threshold,nearest,nearest_similarity,matches"
HEADER = f"{COMMON},score:a,score:ä"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLASSIFY_API_KEY", raising=False)
    return tmp_path


@pytest.fixture
def images(folder):
    """Ten images in a folder, which are answered in three requests."""
    (folder / "photos").mkdir()
    for number in range(10):
        (folder / "photos" / f"{number}.jpg").write_text(f"{number}")
    return [f"photos/{number}.jpg" for number in range(10)]


@pytest.fixture
def server():
    with StandIn(lambda request: echo(request, neighbors=("a/1.jpg", "x/2.jpg"))) as running:
        yield running


def classify(server, *arguments, timeout_s=60):
    options = ["-ip", server.url, "--timeout_s", str(timeout_s)]
    return CliRunner().invoke(main, [*options, *map(str, arguments)], catch_exceptions=False)


def rows(file):
    with Path(file).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def records(file):
    return [json.loads(line) for line in Path(file).read_text("utf-8").splitlines()]


def names():
    return sorted(path.name for path in Path().iterdir())


def sent(server):
    return [image.decode() for request in server.inferences for image in request.images]


class FailsAt:
    """Answers requests until one has this image, which it refuses."""

    def __init__(self, image, reply):
        self.image = image.encode()
        self.reply = reply

    def __call__(self, request):
        return self.reply if self.image in request.images else echo(request)


def test_csv_on_standard_output_has_a_row_for_each_image(images, server):
    result = classify(server, "-l", "photos", "--csv")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[:2] == [HEADER, "photos/0.jpg,0,0.5,,,3,0.8,a/1.jpg,0.75,0,0.25,0.5"]
    assert [line.split(",")[0] for line in lines[1:]] == images
    assert result.stderr == ""


def test_json_lines_are_the_entries_of_json(images, server):
    lines = classify(server, "-l", *images, "--jsonl").stdout.splitlines()
    whole = json.loads(classify(server, "-l", *images, "--json").stdout)
    assert [json.loads(line) for line in lines] == whole["results"]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_ending_of_the_file_chooses_the_form(ending, images, server):
    result = classify(server, "-l", "photos", "-o", f"results.{ending}")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"Written: results.{ending} (10 images)\n"
    assert Path(f"results.{ending}").read_text() == classify(server, "-l", "photos", f"--{ending}").stdout


def test_image_without_a_result_has_its_reason_in_its_row(images, server):
    Path("photos/0.jpg").write_text("bad")  # before the classes are known
    Path("photos/5.jpg").write_text("bad")
    result = classify(server, "-l", "photos", "-o", "r.csv")
    assert result.exit_code == 1
    assert "Error: 2 of 10 images have no result; the reason is with each." in result.stderr
    assert list(rows("r.csv")[0]) == HEADER.split(",")
    assert [row["error"] for row in rows("r.csv")] == ["bad is no image", *[""] * 4, "bad is no image", *[""] * 4]
    assert [row["file"] for row in rows("r.csv")] == images


def test_images_without_any_result_have_rows_without_scores(images, server):
    for image in images:
        Path(image).write_text("bad")
    assert classify(server, "-l", "photos", "-o", "r.csv").exit_code == 1
    assert list(rows("r.csv")[0]) == COMMON.split(",")
    assert [row["file"] for row in rows("r.csv")] == images
    for image in images:
        Path(image).write_text("a")
    assert classify(server, "-l", "photos", "-o", "r.csv", "--resume").exit_code == 0
    assert list(rows("r.csv")[0]) == HEADER.split(",")
    assert [row["file"] for row in rows("r.csv")] == images


def test_parquet_has_the_columns_of_csv_with_their_types(images, server):
    Path("photos/0.jpg").write_text("bad")
    result = classify(server, "-l", "photos", "-o", "r.parquet")
    assert result.exit_code == 1
    table = parquet.read_table("r.parquet")
    assert table.column_names == HEADER.split(",")
    first, second = table.to_pylist()[:2]
    assert (first["error"], first["label"], first["score:a"]) == ("bad is no image", None, None)
    assert (second["file"], second["version"], second["score:ä"], second["matches"]) == ("photos/1.jpg", 3, 0.5, 0)
    assert names() == ["photos", "r.parquet"]
    assert classify(server, "-l", "photos", "-o", "r.parquet", "--resume").exit_code == 1
    assert parquet.read_table("r.parquet").num_rows == 10


def test_parquet_keeps_what_resume_needs_while_an_image_may_still_get_a_result(images, server):
    server.answer = FailsAt("4", refusal(400, "not today"))
    first = classify(server, "-l", "photos", "-o", "r.parquet")
    assert first.exit_code == 1
    assert parquet.read_table("r.parquet").column("error").null_count == 6
    assert names() == ["photos", "r.parquet", "r.parquet.jsonl"]
    server.answer = echo
    assert classify(server, "-l", "photos", "-o", "r.parquet", "--resume").exit_code == 0
    assert parquet.read_table("r.parquet").column("error").null_count == 10
    assert names() == ["photos", "r.parquet"]


def test_parquet_without_its_package_is_refused_before_anything_is_sent(images, server, monkeypatch):
    monkeypatch.setattr(extras, "_installed", lambda name: name != "pyarrow")
    result = classify(server, "-l", "photos", "-o", "r.parquet")
    assert result.exit_code == 1
    assert result.stderr == "Error: pyarrow is missing. Install it:\n  pip install 'classify-triton[report]'\n"
    assert not server.requests


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl", "r.parquet"])
def test_existing_file_is_never_overwritten(name, images, server):
    Path(name).write_text("mine")
    result = classify(server, "-l", "photos", "-o", name)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {name} exists already")
    assert Path(name).read_text() == "mine"
    assert not server.requests


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl", "r.parquet"])
def test_lost_server_leaves_what_is_answered_and_resume_adds_the_rest(name, images, server):
    server.answer = FailsAt("8", Reply(hang_up=True))
    first = classify(server, "-l", "photos", "-o", name, timeout_s=0.5)
    kept = f"{name}.jsonl" if name == "r.parquet" else name
    assert first.exit_code == 1
    assert f"{kept} holds 8 of 10 images: go on with the same command and --resume." in first.stderr
    read = rows if name == "r.csv" else records
    assert len(read(kept)) == 8
    assert not Path("r.parquet").exists()
    server.answer = echo
    server.requests.clear()
    again = classify(server, "-l", "photos", "-o", name, "--resume")
    assert again.exit_code == 0
    assert f"{kept} holds 8 of 10 images already." in again.stderr
    assert sent(server) == ["8", "9"]
    if name == "r.parquet":
        assert parquet.read_table(name).column("file").to_pylist() == images
        assert not Path(kept).exists()
    else:
        assert [row.get("file") or row["Image"] for row in read(name)] == images


def test_server_that_refuses_everything_leaves_no_file(images, server):
    server.answer = lambda request: refusal(401, "no key")
    result = classify(server, "-l", "photos", "-o", "r.csv")
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {server.url} answered 401: no key. Is the key in --api_key, or in the variable CLASSIFY_API_KEY, "
        "right? (status 401).\n"
    )
    assert names() == ["photos"]


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl"])
def test_resume_sends_again_what_may_pass_and_nothing_else(name, images, server):
    Path("photos/0.jpg").write_text("bad")
    server.answer = FailsAt("4", refusal(400, "not today"))  # with 5, 6 and 7
    first = classify(server, "-l", "photos", "-o", name)
    assert first.exit_code == 1
    assert "5 of 10 images have no result; the reason is with each. For 4 of them it may pass" in first.stderr
    server.answer = echo
    server.requests.clear()
    assert classify(server, "-l", "photos", "-o", name, "--resume").exit_code == 1
    assert sent(server) == ["4", "5", "6", "7"]
    read = rows(name) if name == "r.csv" else records(name)
    assert sorted(row.get("file") or row["Image"] for row in read) == images
    assert [bool(row.get("error") or row.get("Error")) for row in read] == [True, *[False] * 9]


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl"])
@pytest.mark.parametrize("cut", [1, 3, 20])
def test_torn_last_line_is_written_again(name, cut, images, server):
    odd = 'photos/3, "odd"\nname.jpg'
    Path("photos/3\r.jpg").write_text("3")
    Path(odd).write_text("3")
    classify(server, "-l", "photos", "-o", name)
    whole = Path(name).read_bytes()
    for end in (len(whole) - cut, whole.index(b"name.jpg") + 4):
        Path(name).write_bytes(whole[:end])
        assert classify(server, "-l", "photos", "-o", name, "--resume").exit_code == 0
        assert Path(name).read_bytes() == whole


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl"])
def test_resume_of_a_finished_file_sends_nothing(name, images, server):
    classify(server, "-l", "photos", "-o", name)
    whole = Path(name).read_bytes()
    server.requests.clear()
    result = classify(server, "-l", "photos", "-o", name, "--resume")
    assert (result.exit_code, server.requests) == (0, [])
    assert Path(name).read_bytes() == whole


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("r.csv", b"name,age\nme,7\n", "columns of r.csv are not those that classify writes"),
        ("r.csv", f"{HEADER}\na,b\n".encode(), "a row of r.csv is no result"),
        ("r.csv", f"{HEADER}\na,b,0.5,,,new,,,,,1,1\n".encode(), "a row of r.csv is no result"),
        ("r.csv", b'"a" b\n', "no CSV in UTF-8"),
        ("r.csv", b"\xff\xfe\n", "no CSV in UTF-8"),
        ("r.jsonl", b"{}\n", "line 1 of r.jsonl is no result"),
        ("r.jsonl", b"[1]\n", "line 1 of r.jsonl is no result"),
        ("r.jsonl", b'{"Image": ["a"]}\n', "line 1 of r.jsonl is no result"),
        pytest.param("r.jsonl", b"[" * 100_000 + b"\n", "line 1 of r.jsonl is no JSON", id="deep"),
        ("r.jsonl", b'{"Image": "a"}\n', "line 1 of r.jsonl is no result"),
        (
            "r.jsonl",
            b'{"Image": "a", "Label": "a", "Probability": 1, "Version": "v"}\n',
            "line 1 of r.jsonl is no result",
        ),
        ("r.jsonl", b'{"Image": "\\ud800", "Label": "a", "Probability": 1}\n', "line 1 of r.jsonl is no result"),
        ("r.jsonl", b"hello\n", "line 1 of r.jsonl is no JSON"),
        pytest.param("r.jsonl", b" " * (17 * 2**20), "has a line of more than", id="long"),
    ],
)
def test_resume_refuses_a_file_of_another_kind_and_leaves_it(name, content, says, images, server):
    Path(name).write_bytes(content)
    result = classify(server, "-l", "photos", "-o", name, "--resume")
    assert result.exit_code == 1
    assert says in result.stderr
    assert Path(name).read_bytes() == content
    assert names() == sorted(["photos", name])
    assert not server.requests


def pause_at(server, image):
    """Have a server wait at an image. Return the events that it has come to that, and that it may go on."""
    reached, going_on = threading.Event(), threading.Event()

    def answer(request):
        if image in request.images:
            reached.set()
            going_on.wait(60)
        return echo(request)

    server.answer = answer
    return reached, going_on


@pytest.mark.parametrize("name", ["r.csv", "r.parquet"])
def test_two_runs_do_not_write_one_file(name, images, server):
    """Otherwise the second, which drops the row that may pass, would put another file in the first one's place."""
    answered, going_on = pause_at(server, b"4")
    with start(server, "-l", "photos", "-o", name) as process:
        assert answered.wait(60)
        second = classify(server, "-l", "photos", "-o", name, "--resume")
        going_on.set()
        process.communicate(timeout=60)
    assert second.exit_code == 1
    assert "is being written by another run of classify. Wait until it ends" in second.stderr
    read = rows(name) if name == "r.csv" else parquet.read_table(name).to_pylist()
    assert [row["file"] for row in read] == images


def test_another_version_is_named(images, server):
    classify(server, "-l", "photos/0.jpg", "-o", "r.csv")
    text = Path("r.csv").read_text()
    Path("r.csv").write_text(text.replace(",3,0.8,", ",2,0.8,"))
    result = classify(server, "-l", "photos", "-o", "r.csv", "--resume")
    assert result.exit_code == 0
    assert "Note: version 3 of the server answers now; earlier results are of version 2." in result.stderr


def test_other_classes_end_a_csv_file_and_no_json_lines(images, server):
    for name in ("r.csv", "r.jsonl"):
        classify(server, "-l", "photos/0.jpg", "-o", name)
    text = Path("r.csv").read_text()
    Path("r.csv").write_text(text.replace("score:a", "score:b"))
    result = classify(server, "-l", "photos", "-o", "r.csv", "--resume")
    assert result.exit_code == 1
    assert "version 3 of the server has other classes (a, ä) than the columns (b, ä)" in result.stderr
    assert len(rows("r.csv")) == 1
    assert classify(server, "-l", "photos", "-o", "r.jsonl", "--resume").exit_code == 0


def test_names_that_are_formulas_or_no_text_are_written_safely(folder, server):
    undecodable = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    for name in ("=1+1.jpg", "-b.jpg", 'ü, "x".jpg', undecodable):
        Path(name).write_text("-1")
    arguments = ("-l", "*.jpg", "-o")
    assert classify(server, *arguments, "r.csv").exit_code == 0
    assert [row["file"] for row in rows("r.csv")] == ["./-b.jpg", "./=1+1.jpg", "caf\\xe9.jpg", 'ü, "x".jpg']
    assert {row["label"] for row in rows("r.csv")} == {"'-1"}
    assert classify(server, *arguments, "r.jsonl").exit_code == 0
    assert [record["Image"] for record in records("r.jsonl")] == ["-b.jpg", "=1+1.jpg", "caf\\xe9.jpg", 'ü, "x".jpg']
    assert {record["Label"] for record in records("r.jsonl")} == {"-1"}
    server.requests.clear()
    for name in ("r.csv", "r.jsonl"):
        assert classify(server, *arguments, name, "--resume").exit_code == 0
    assert not server.requests


def test_note_of_the_server_has_a_column():
    entry = {"Label": "a", "Probability": 1.0, "Scores": {"a": 1.0}, "Matches": {}, "Neighbors": [], "Version": 1}
    encoded = Csv().encode("a.jpg", {**entry, "Note": "turned"}).decode()
    assert encoded == f"{COMMON},score:a\na.jpg,a,1.0,,turned,1,,,,,1.0\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--csv --jsonl", "two forms of results"),
        ("--csv -o r.jsonl", "two forms of results"),
        ("--csv -o r.parquet", "two forms of results"),
        ("-o results", "-o 'results': end the name in .csv, .jsonl, .parquet, or add --csv or --jsonl"),
        ("--json --csv", "--json is one document"),
        ("--json -o r.csv", "--json is one document"),
        ("--resume", "name it with -o FILE"),
        ("-o photos", "is a directory"),
    ],
)
def test_contradictions_are_wrong_usage(arguments, says, images, server):
    result = classify(server, "-l", "photos", *arguments.split())
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.split())
    assert names() == ["photos"]


def test_form_may_be_named_for_a_file_of_any_ending(images, server):
    assert classify(server, "-l", "photos", "--csv", "-o", "results.txt").exit_code == 0
    assert len(rows("results.txt")) == 10


def test_folder_that_is_not_there_is_named_before_anything_is_sent(images, server):
    result = classify(server, "-l", "photos", "-o", "nowhere/r.csv")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: nowhere/r.csv can't be written: No such file or directory. Name a file in another folder.\n"
    )
    assert not server.requests


def start(server, *arguments, **options):
    command = [sys.executable, "-m", "inference_client", "-ip", server.url, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"])
def test_stop_signal_keeps_every_answer_and_says_how_to_go_on(number, status, images, server):
    answered, going_on = pause_at(server, b"4")
    with start(server, "-l", "photos", "-o", "r.csv") as process:
        assert answered.wait(60)
        while len(rows("r.csv")) < 4:  # written while the others are still to come
            time.sleep(0.01)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    going_on.set()
    assert process.returncode == status
    assert "Error: Interrupted. r.csv holds 4 of 10 images: go on with the same command and --resume.\n" in errors
    assert [row["file"] for row in rows("r.csv")] == images[:4]


def limit_file_size():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400))


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl"])
def test_full_disk_leaves_whole_results(name, images, server):
    with start(server, "-l", "photos", "-o", name, preexec_fn=limit_file_size) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"Error: {name} can't be written any further: File too large. What it holds is whole. {name} holds" in errors
    assert Path(name).read_bytes().endswith(b"\n")
    assert 0 < len(rows(name) if name == "r.csv" else records(name)) < 10
    assert classify(server, "-l", "photos", "-o", name, "--resume").exit_code == 0
    assert len(rows(name) if name == "r.csv" else records(name)) == 10


def test_full_disk_behind_standard_output_is_named(images, server):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "inference_client", "-ip", server.url, "-l", "photos", "--csv"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == "Error: standard output can't be written: No space left on device.\n"
