"""Pictures of the console's pages: python -m tests.console.pictures.

Makes every state on a phone and a desktop, light and dark, in build/console/, prints what axe-core finds, and renews
the few pictures that the docs show.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

from inference_server.triton.process import running_server
from tests import resources
from tests.checkout import CHECKOUT
from tests.console import shown_pictures
from tests.console.browser import DESKTOP, PHONE, Browser, describe, open_browser
from tests.console.states import STATES, Site, State, running_site

OUT = CHECKOUT / "build/console"
DEMONSTRATION = CHECKOUT / "build/demonstration"
_COLORS = 64
_MOST_SHOWN = 1080  # pixels from the top
LOOKS = {
    "phone": (PHONE, False),
    "phone-dark": (PHONE, True),
    "desktop": (DESKTOP, False),
    "desktop-dark": (DESKTOP, True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="part of the names of the states to show")
    parser.add_argument("--docs", action="store_true", help="only the pictures of the docs")
    parser.add_argument("--reuse", action="store_true", help="serve what the run before exported")
    options = parser.parse_args()
    repository, base = OUT / "model_repository", OUT / "base"
    if not options.reuse:
        _export(base, repository)
    shutil.rmtree(OUT / "consoles", ignore_errors=True)
    faces, others = (sorted((DEMONSTRATION / "query" / name).iterdir()) for name in ("face", "not_face"))
    photographs = resources.write_photographs(OUT / "photographs")
    images = [faces[0], photographs[3], others[3]]
    with (
        running_server(repository, log=OUT / "server.log") as server,
        running_site(OUT / "consoles", server.url, base, repository, images) as site,
        open_browser() as browser,
    ):
        for state in () if options.docs else STATES:
            if options.only in state.name:
                _show(browser, site, state)
        if not options.only:
            _show_in_docs(browser, site)


def _export(base: Path, repository: Path) -> None:
    if not DEMONSTRATION.is_dir():
        command = [sys.executable, "-m", "examples.demonstration", "prepare", "--out", str(DEMONSTRATION)]
        subprocess.run(command, check=True)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    shutil.copytree(DEMONSTRATION / "base", base)
    arguments = ["-r", str(DEMONSTRATION / "resources"), "-data", str(base), "--image_size", "64"]
    arguments += ["--model_repository", str(repository), "--unknown_label", "unknown", "-thres", "0.9"]
    subprocess.run([sys.executable, "-m", "inference_export", *arguments], check=True)


def _show_in_docs(browser: Browser, site: Site) -> None:
    states = {state.name: state for state in (*STATES, State(name="classify-docs", reach=_answered))}
    shown_pictures.FOLDER.mkdir(exist_ok=True)
    for name, (state, _) in shown_pictures.PICTURES.items():
        browser.show()
        states[state].reach(browser, site)
        browser.wait_for_images()
        pixels = Image.open(io.BytesIO(browser.picture())).convert("RGB")
        shown = pixels.crop((0, 0, pixels.width, min(pixels.height, _MOST_SHOWN)))
        shown.quantize(_COLORS, dither=Image.Dither.NONE).save(shown_pictures.picture(name), optimize=True)
    shown_pictures.record()


def _answered(browser: Browser, site: Site) -> None:
    browser.open(f"{site.open.url}/")
    browser.choose(*site.images[:2])
    browser.answers()


def _show(browser: Browser, site: Site, state: State) -> None:
    browser.show()
    state.reach(browser, site)
    violations, passes, unclear = 0, 0, []
    for look, (width, is_dark) in LOOKS.items():
        browser.show(width=width, dark=is_dark)
        browser.wait_for_images()
        Image.open(io.BytesIO(browser.picture())).save(OUT / f"{state.name}-{look}.png", optimize=True)
        found = browser.axe()
        violations += len(found["violations"])
        passes = len(found["passes"])
        unclear += [each["id"] for each in found["incomplete"]]
        if found["violations"]:
            print(describe(found))
    undecided = ", ".join(sorted({*unclear})) or "nothing"
    print(f"{state.name:28} {violations} violations, {passes} rules pass, undecided: {undecided}", flush=True)


if __name__ == "__main__":
    main()
