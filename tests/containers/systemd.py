"""systemd boots in a container, and the page "Run it under systemd" is followed there, step by step, under load."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inference_server.supervision.watching import EXIT_TIMEOUT_S, LAST_ANSWERS_S
from tests import tiny_network
from tests.chaos.tally import Tally
from tests.checkout import CHECKOUT, copy_checkout
from tests.containers.engine import Engine
from tests.containers.place import Place
from tests.containers.stand_ins import PIP_CONF
from tests.docs.snippets import Snippet, read_snippets
from tests.resources import write_faces

PAGE = CHECKOUT / "docs" / "how-to" / "systemd.md"
REASON = "needs systemd as process 1; make test-containers runs it in a container"
NEXT_VERSION = "0.1.0+next"
SOURCE = "/root/classify-triton"
UNIT, SYNC, CONSOLE = "inference-server", "base-set-sync", "inference-console"
BOOT_TIMEOUT_S = 60.0
STEP_TIMEOUT_S = 240
ANSWER_TIMEOUT_S = 60.0
_POLL_S = 0.2
# systemd needs the engine's cgroups, and capabilities to shut services in.
_RUN_OPTIONS = (
    "--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--cap-add", "SYS_PTRACE",
    "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
    "--tmpfs", "/run", "--tmpfs", "/run/lock", "--shm-size", "512m", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:ro",
)  # fmt: skip
_NAME, _IMAGE, _SYSTEM = "classify-systemd", "stand-in/node:12", "stand-in/systemd:12"
_DOCKERFILE = f"""FROM {_SYSTEM}
COPY pip.conf /etc/pip.conf
COPY checkout {SOURCE}
WORKDIR {SOURCE}
CMD ["/sbin/init"]
"""
_LOAD = """
import json, pathlib, sys
from inference_client import Classify
stop, tally = pathlib.Path("/run/load.stop"), {"sent": 0, "answered": 0, "failed": []}
with Classify("http://127.0.0.1:8080", timeout_s=60) as classify:
    while not stop.exists():
        results, status = classify(["a.jpg", "b.jpg"])
        tally["sent"] += 2
        if status == 200:
            tally["answered"] += 2
        else:
            tally["failed"].append([status, str(results)[:500]])
pathlib.Path("/run/load.json").write_text(json.dumps(tally))
"""
_CAN_CONNECT = "(echo > /dev/tcp/127.0.0.1/8090) 2> /dev/null"
# Asks the console as a program does. To change and to forget, it reaches the server and the server's memory.
_ASK_THE_CONSOLE = """
import json, pathlib, sys, urllib.request
token = pathlib.Path("/etc/classify/console-tokens").read_text().split()[2]
def ask(method, path, file=None):
    headers, body = {"Authorization": f"Bearer {token}", "Host": "classify.example.com"}, None
    if file is not None:
        headers["Content-Type"] = "multipart/form-data; boundary=BOUNDARY"
        head = f'--BOUNDARY\\r\\nContent-Disposition: form-data; name="files"; filename="{file}"\\r\\n\\r\\n'
        body = head.encode() + pathlib.Path(file).read_bytes() + b"\\r\\n--BOUNDARY--\\r\\n"
    request = urllib.request.Request(f"http://127.0.0.1:8090/{path}", body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=100) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        sys.exit(f"{method} {path}: {error.code} {error.read().decode()}")
assert ask("POST", "classify", "b.jpg")[0]["Label"]
added = ask("POST", "base-set/not_face", "b.jpg")
assert (added["added"], added["servers"]) == (["not_face/b.jpg"], [8080]), added
removed = ask("DELETE", "base-set/not_face/b.jpg?forget=true&confirm=not_face/b.jpg")
print(json.dumps(removed))
"""


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What has been run.

    Attributes:
        name: What for.
        what: What happened, in words.
        seconds: How long it took.
        sent: Images that the load had sent.
        answered: Images that were classified.
        failed: Images that were not.
    """

    name: str
    what: str
    seconds: float
    sent: int = 0
    answered: int = 0
    failed: int = 0


class SystemdError(AssertionError):
    """Something did not do what the page says."""


def prepare_context(folder: Path) -> None:
    """Fill a folder with a checkout that has exports and images: what the container of systemd is built from."""
    checkout = folder / "checkout"
    copy_checkout(checkout)
    write_faces(checkout / "base" / "face", [1, 2, 3, 4], "x")
    write_faces(checkout / "base" / "not_face", [101, 102, 103], "x")
    for number, image in enumerate(write_faces(folder / "queries", [10, 110], "q")):
        shutil.copy(image, checkout / f"{'ab'[number]}.jpg")
    subprocess.run(
        [sys.executable, "-m", "inference_export", "-r", tiny_network.write_tiny_resources(folder / "trained"),
         "--network", tiny_network.NETWORK, "-data", checkout / "base",
         "--model_repository", checkout / "exports" / "export-1"],
        check=True, cwd=CHECKOUT, capture_output=True,
    )  # fmt: skip
    shutil.copytree(checkout / "exports" / "export-1", checkout / "exports" / "export-2")


def run_systemd(place: Place) -> Iterator[Tally]:
    """Boot systemd, follow the page, and break the server in the ways that the page speaks of."""
    engine, context = place.engine, place.systemd_context
    engine.docker("import", place.materials.systems["systemd"], _SYSTEM)
    (context / "pip.conf").write_text(PIP_CONF)
    (context / "Dockerfile").write_text(_DOCKERFILE)
    engine.docker("build", "--quiet", "--tag", _IMAGE, context)
    engine.docker("run", "--detach", "--name", _NAME, "--hostname", "node", *_RUN_OPTIONS, _IMAGE)
    machine = _Machine(engine)
    try:
        for ran in _steps(machine):
            yield Tally(
                what=f"systemd: {ran.name}",
                times=1,
                sent=ran.sent,
                right=ran.answered,
                lost=ran.failed,
                notes=[f"{ran.what[:70]}, {ran.seconds:.1f} s"],
            )
    except AssertionError as error:
        units = " ".join(f"-u {unit}" for unit in (UNIT, SYNC, CONSOLE))
        journal = machine.run(f"journalctl --no-pager --output short-precise {units} | tail -n 40 || true")
        raise SystemdError(f"{error}\n{journal}") from error
    finally:
        engine.docker("rm", "--force", "--volumes", _NAME)


class _Machine:
    """The container, as its administrator sees it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run(self, code: str) -> str:
        """Run a shell script as root in the checkout; return its standard output."""
        shell = ("timeout", str(STEP_TIMEOUT_S), "bash", "-euo", "pipefail")
        return self._engine.docker("exec", "--interactive", _NAME, *shell, given=code)

    def property(self, name: str, unit: str = UNIT) -> str:
        return self.run(f"systemctl show --value --property {name} {unit}").strip()

    def wait(self, what: str, condition: str, timeout_s: float) -> float:
        """Wait until a shell condition holds; return how long it took.

        A ``grep --quiet`` in it would end what it reads from, and with ``pipefail`` the condition would not hold.
        """
        began_s = time.monotonic()
        while not self.run(f"if {condition}; then echo yes; fi"):
            if time.monotonic() - began_s > timeout_s:
                state = self.run(f"systemctl status --no-pager {UNIT} {SYNC} || true")
                raise SystemdError(f"{what}: not within {timeout_s:g} s\n{state}")
            time.sleep(_POLL_S)
        return time.monotonic() - began_s

    @contextmanager
    def load(self) -> Iterator[list[int]]:
        """Have a client send images without a pause; afterwards the list holds those sent, answered and failed."""
        counts: list[int] = []
        self.run(f"rm -f /run/load.*\ncat > /run/load.py <<'END'\n{_LOAD}\nEND")
        python = self.run("readlink -f /opt/classify").strip() + "/bin/python"
        self.run(f"nohup {python} /run/load.py > /run/load.log 2>&1 & sleep 1")
        try:
            yield counts
        finally:
            self.run("touch /run/load.stop")
            self.wait("the load's end", "test -s /run/load.json || ! pgrep -f load.py > /run/null", 90)
        tally = json.loads(self.run("cat /run/load.json || cat /run/load.log"))
        if tally["failed"]:
            raise SystemdError(f"requests failed: {tally['failed'][:3]}")
        counts += [tally["sent"], tally["answered"], 2 * len(tally["failed"])]


def page_blocks() -> list[Snippet]:
    """Return the page's blocks that need systemd, in their order."""
    return [snippet for snippet in read_snippets(PAGE) if snippet.is_code and snippet.not_run == REASON]


def _steps(machine: _Machine) -> Iterator[Ran]:
    seconds = machine.wait("boot", "systemctl is-system-running --quiet", BOOT_TIMEOUT_S)
    yield Ran(name="boot", what=machine.run("systemctl --version | head -n 1").strip(), seconds=seconds)
    blocks = iter(page_blocks())
    for block in blocks:  # 1. Install
        began_s = time.monotonic()
        printed = machine.run(block.code)
        yield Ran(name=f"page, line {block.line}", what=str(block).rpartition(": ")[2],
                  seconds=time.monotonic() - began_s)  # fmt: skip
        if "classify -l" in block.code:
            _require("a.jpg" in printed, printed)
            break
    _require(machine.property("ActiveState") == "active", "the unit is not active")
    yield _shut_in(machine)
    yield _killed(machine)
    yield _stopped(machine)
    yield _timer(machine)
    for block in blocks:
        upgrades, goes_back = "classify.before\n" in block.code, "cat /opt/classify.before" in block.code
        if upgrades:
            machine.run(f"sed -i 's/^__version__ = .*/__version__ = \"{NEXT_VERSION}\"/' "
                        "client/inference_client/version.py")  # fmt: skip
        began_s = time.monotonic()
        if "classify-base-set forget" in block.code or "systemctl" not in block.code:
            machine.run(block.code)
            counts: list[int] = []
        else:
            with machine.load() as counts:
                machine.run(block.code)
        sent, answered, failed = counts or (0, 0, 0)
        if upgrades or goes_back:
            expected = NEXT_VERSION if upgrades else "0.1.0"
            running = machine.run(f"tr '\\0' '\\n' < /proc/{machine.property('MainPID')}/cmdline | head -n 1").strip()
            _require(running == f"/opt/classify-{expected}/bin/python3", f"{running} runs")
        yield Ran(name=f"page, line {block.line}", what=str(block).rpartition(": ")[2],
                  seconds=time.monotonic() - began_s, sent=sent, answered=answered, failed=failed)  # fmt: skip
        if CONSOLE in block.code:
            yield _console(machine)
    yield _console_again(machine)
    yield _watched(machine)
    yield _wrong_usage(machine)
    yield _given_up(machine)
    journal = machine.run(f"journalctl --no-pager --output cat -u {UNIT} -u {SYNC} -u {CONSOLE}")
    for bad in ("Traceback", "Operation not permitted", "Permission denied", "Failed to initialize", "/proc/stat"):
        _require(bad not in journal, f"the journal holds {bad!r}")


def _shut_in(machine: _Machine) -> Ran:
    """The unit's restrictions hold in this container: the kernel, not systemd, is asked."""
    began_s = time.monotonic()
    pid = machine.property("MainPID")
    status = machine.run(f"cat /proc/{pid}/status")
    for line in ("NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"):
        _require(line in status, f"not {line!r}:\n{status}")
    for path in ("/var/lib/classify/x", "/usr/x", "/opt/classify/x"):
        machine.run(f"! nsenter --target {pid} --mount touch {path} 2> /dev/null")
    modes = machine.run("stat --format '%a %U' /run/inference-server /run/inference-server/8080.json").split("\n")
    _require(modes[:2] == ["700 classify", "600 classify"], str(modes))
    return Ran(name="shut in", what="no capabilities, read-only, key closed", seconds=time.monotonic() - began_s)


def _killed(machine: _Machine) -> Ran:
    """SIGKILL of the main process: what is left of it ends, and the next one answers."""
    restarts = int(machine.property("NRestarts"))
    with machine.load() as counts:
        old = machine.property("MainPID")
        children = machine.run(f"pgrep --parent {old}").split()
        machine.run(f"systemctl kill --signal KILL --kill-who main {UNIT}")
        began_s = time.monotonic()
        machine.wait("restart", f"test $(systemctl show --value --property NRestarts {UNIT}) -gt {restarts} && "
                     "/opt/classify/bin/inference-server --check 2> /dev/null", ANSWER_TIMEOUT_S)  # fmt: skip
        seconds = time.monotonic() - began_s
    for child in children:
        _require(not machine.run(f"cat /proc/{child}/comm 2> /dev/null || true"), "a process was left behind")
    locks = machine.run("ls /dev/shm | grep --count _lock").strip()
    _require(locks == "1", f"shared memory of {locks} servers")
    sent, answered, failed = counts
    return Ran(name="SIGKILL", what="answered again", seconds=seconds, sent=sent, answered=answered, failed=failed)


def _stopped(machine: _Machine) -> Ran:
    """A stop ends with 0 in time, and leaves nothing; requests of meanwhile are answered after the next start."""
    with machine.load() as counts:
        began_s = time.monotonic()
        machine.run(f"systemctl stop {UNIT}")
        seconds = time.monotonic() - began_s
        ended = [machine.property(name) for name in ("Result", "ExecMainCode", "ExecMainStatus", "ActiveState")]
        _require(ended == ["success", "1", "0", "inactive"], f"the stop ended with {ended}")
        left = machine.run("ls /dev/shm /run/inference-server 2> /dev/null || true").replace("/dev/shm:", "").strip()
        _require(not left, f"the stop has left {left}")
        machine.run(f"systemctl start {UNIT}")
    _require(seconds < EXIT_TIMEOUT_S + LAST_ANSWERS_S, f"the stop took {seconds:.1f} s")
    sent, answered, failed = counts
    return Ran(name="stop", what="exit code 0, nothing left behind", seconds=seconds, sent=sent, answered=answered,
               failed=failed)  # fmt: skip


def _timer(machine: _Machine) -> Ran:
    """The timer starts the sync by itself, here at once instead of at night."""
    drop_in = f"/run/systemd/system/{SYNC}.timer.d"
    machine.run("install -o classify -m 640 a.jpg /srv/classify/base/face/timer.jpg")
    machine.run(f"mkdir -p {drop_in}\nprintf '[Timer]\\nOnActiveSec=1\\nAccuracySec=1us\\nRandomizedDelaySec=0\\n' > "
                f"{drop_in}/now.conf\nsystemctl daemon-reload")  # fmt: skip
    with machine.load() as counts:
        machine.run(f"systemctl restart {SYNC}.timer")
        seconds = machine.wait(
            "sync of the timer",
            f"journalctl --no-pager --output cat -u {SYNC} | grep --count 'served now by inference-server' > /dev/null",
            ANSWER_TIMEOUT_S,
        )
    machine.run(f"rm -r {drop_in}\nsystemctl daemon-reload\nsystemctl restart {SYNC}.timer")
    sent, answered, failed = counts
    return Ran(name="timer", what="synced, and served", seconds=seconds, sent=sent, answered=answered, failed=failed)


def _watched(machine: _Machine) -> Ran:
    """With the page's drop-in, the base set follows its folder without the timer."""
    machine.run("install -o classify -m 640 a.jpg /srv/classify/base/face/watched.jpg")
    seconds = machine.wait(
        "watching", "classify-base-set list --images | grep --count face/watched.jpg > /dev/null", ANSWER_TIMEOUT_S
    )
    return Ran(name="--watch_base_data", what="followed", seconds=seconds)


def _console(machine: _Machine) -> Ran:
    """The console changes the base set that is served, and forgets an image, in the restrictions of its unit."""
    began_s = time.monotonic()
    machine.wait(
        "console", f"journalctl --no-pager -u {CONSOLE} | grep --count 'console at' > /dev/null", BOOT_TIMEOUT_S
    )
    machine.run("systemctl restart inference-server")  # with which the console ends and starts
    machine.wait(
        "console after the restart", f"systemctl is-active --quiet {CONSOLE} && {_CAN_CONNECT}", ANSWER_TIMEOUT_S
    )
    forgotten = machine.run(f"python3 - <<'END'\n{_ASK_THE_CONSOLE}END")
    _require("not_face/b.jpg" in forgotten, forgotten)
    pid = machine.property("MainPID", CONSOLE)
    status = machine.run(f"cat /proc/{pid}/status")
    for line in ("NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"):
        _require(line in status, f"not {line!r}:\n{status}")
    machine.run("! runuser -u nobody -- cat /etc/classify/console-tokens 2> /dev/null")
    return Ran(name="console", what="classified, added, forgot", seconds=time.monotonic() - began_s)


def _console_again(machine: _Machine) -> Ran:
    """After restarts and an upgrade of the server, the console runs and reaches it."""
    began_s = time.monotonic()
    machine.wait("console", _CAN_CONNECT, ANSWER_TIMEOUT_S)
    machine.run(f"python3 - <<'END'\n{_ASK_THE_CONSOLE}END")
    return Ran(name="console after restarts", what="classified, added, forgot", seconds=time.monotonic() - began_s)


def _wrong_usage(machine: _Machine) -> Ran:
    """A mistake in the options ends at once: no restart mends it."""
    began_s = time.monotonic()
    machine.run(
        f"cp /etc/default/{UNIT} /run/options\necho OPTIONS=--no_such_option > /etc/default/{UNIT}\n"
        f"! systemctl restart {UNIT} 2> /dev/null\nsleep 3"
    )
    ended = [machine.property(name) for name in ("ActiveState", "ExecMainStatus", "NRestarts")]
    _require(ended == ["failed", "2", "0"], f"wrong usage: {ended}")
    machine.run(f"mv /run/options /etc/default/{UNIT}\nsystemctl restart {UNIT}")
    return Ran(name="wrong usage", what="failed with 2, not restarted", seconds=time.monotonic() - began_s)


def _given_up(machine: _Machine) -> Ran:
    """A server that can't start is not restarted for ever; here without the pauses between its starts."""
    drop_in = f"/run/systemd/system/{UNIT}.service.d"
    machine.run(
        f"systemctl stop {UNIT}\nsystemctl reset-failed\nmkdir -p {drop_in}\n"
        f"printf '[Service]\\nRestartSec=10ms\\n' > {drop_in}/at-once.conf\nsystemctl daemon-reload\n"
        f"mv /var/lib/classify/model_repository /var/lib/classify/away\n! systemctl start {UNIT} 2> /dev/null"
    )
    seconds = machine.wait("giving up", f"systemctl is-failed --quiet {UNIT}", STEP_TIMEOUT_S)
    restarts = int(machine.property("NRestarts"))
    _require(restarts <= 20, f"restarted {restarts} times")
    machine.run(
        f"mv /var/lib/classify/away /var/lib/classify/model_repository\nrm -r {drop_in}\nsystemctl daemon-reload\n"
        f"systemctl reset-failed {UNIT}\nsystemctl start {UNIT}"
    )
    return Ran(name="no repository", what=f"given up after {restarts} restarts", seconds=seconds)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SystemdError(message)
