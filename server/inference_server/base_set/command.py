"""The command ``base-set``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click

from inference_client.command_line.extras import MissingExtraError, require_extras
from inference_client.command_line.options import COMMAND_SETTINGS, FiniteFloatRange
from inference_client.command_line.printing import print_result
from inference_client.command_line.progress import LINE_INTERVAL_S, progress
from inference_client.version import __version__
from inference_export.base_set.embedding_cache import default_cache_folder
from inference_export.changing import BaseSetOptions, prepare_change
from inference_export.command_errors import explained_errors
from inference_export.consequences import answer_new_images, compare_queries, find_doubts
from inference_export.errors import RepositoryError
from inference_export.export_options import ExportOptions
from inference_export.progress import Progress
from inference_export.repository.contents import read_contents
from inference_server.base_set.changing import Outcome, change_base_set, not_reached, roll_back
from inference_server.base_set.history import read_history
from inference_server.base_set.image_folder import images_added, images_removed
from inference_server.base_set.report import (
    check_json,
    check_text,
    list_json,
    list_text,
    outcome_json,
    outcome_text,
    served_text,
)
from inference_server.errors import ServerError

FOUND_EXIT_CODE = 3

F = TypeVar("F", bound=Callable[..., Any])
_DEFAULTS = ExportOptions(resources=Path())


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


_repository_option = click.option(
    "--model_repository",
    type=click.Path(file_okay=False, path_type=Path),
    default=_DEFAULTS.model_repository,
    help="The model repository.",
)
_json_option = click.option("--json", "wants_json", is_flag=True, help="Print the result as JSON instead of text.")
_common_options = _options(_repository_option, _json_option)
_image_options = _options(
    click.option(
        "-data",
        "--base_data",
        type=click.Path(file_okay=False, path_type=Path),
        required=True,
        help="The base data: a folder for each class, with its reference images inside.",
    ),
    click.option(
        "--cache",
        type=click.Path(file_okay=False, path_type=Path),
        default=default_cache_folder,
        show_default="classify-triton in your cache folder",
        help="Folder that keeps computed embeddings.",
    ),
    click.option(
        "-btch",
        "--batch_size",
        type=click.IntRange(1, 1024),
        default=_DEFAULTS.batch_size,
        help="Images embedded at a time. Changes no result.",
    ),
)
_skip_option = click.option(
    "--skip_unreadable/--refuse_unreadable",
    default=None,
    show_default="as in the version before",
    help="Leave out base images that do not decode, or refuse them.",
)
_strict_option = click.option(
    "--strict",
    is_flag=True,
    help="Refuse new images that do not decode, that are closer to another class than to their own, or that are "
    "near-duplicates.",
)


@click.group(context_settings=COMMAND_SETTINGS)
@click.version_option(__version__)
@click.option(
    "--progress_interval",
    type=FiniteFloatRange(min=0),
    metavar="SECONDS",
    default=LINE_INTERVAL_S,
    help="Shortest time between two lines of progress, where standard error is no terminal.",
)
@click.pass_context
def main(context: click.Context, /, *, progress_interval: float) -> None:
    """Change the base set of a model repository, and of the server that runs on it.

    The folder of base images is the truth; these commands make the base set
    follow it within seconds, without PyTorch and without exporting the network
    again. A running inference-server takes the change up in the same command, and
    no request fails. Without one, the next start serves it.

    \b
    Examples:
      base-set add face new/a.jpg new/b.jpg -data base/
      base-set check -data base/ --queries queries/
      base-set sync -data base/
      base-set rollback

    Exit status of every command: 0 done, or nothing to do; 1 refused, and nothing has changed, or base-set forget has
    left something and names it; 2 wrong usage; 3 base-set check has found a doubtful image.
    """  # noqa: D301  (click wants the backspace itself)
    context.obj = partial(progress, interval_s=progress_interval)


@main.command("list")
@_common_options
@click.option("--images", is_flag=True, help="Print the name of every base image as well.")
def list_command(*, model_repository: Path, wants_json: bool, images: bool) -> None:
    """Show what the base set holds, and what changed in each version.

    Every version that the repository keeps is compared with the one before it,
    newest first.
    """
    with _errors(model_repository):
        contents = read_contents(model_repository)
        if contents.base is None:
            raise RepositoryError(f"{model_repository} answers in classification mode, and has no base set.")
        history = read_history(contents)
        if wants_json:
            _print_json(list_json(contents, contents.base, history))
        else:
            print_result(list_text(contents, contents.base, history, images=images))


@main.command()
@_common_options
@_image_options
@_skip_option
@_strict_option
@click.option("--yes", is_flag=True, help="Allow that more than half of the base images go.")
def sync(*, wants_json: bool, strict: bool, yes: bool, **options: Any) -> None:
    """Make the base set equal to the folder of base images.

    Embeds the images that are new and drops those that are gone. A folder that is
    missing, empty or not readable is refused, and what is served stays.
    """
    with _errors(options["model_repository"]):
        _print_outcome(
            change_base_set(BaseSetOptions(**options), strict=strict, large_removals=yes, progress=_progress()),
            wants_json=wants_json,
        )


@main.command()
@click.argument("class_name", metavar="CLASS")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE..."
)
@_common_options
@_image_options
@_skip_option
@_strict_option
def add(class_name: str, files: tuple[Path, ...], *, wants_json: bool, strict: bool, **options: Any) -> None:
    """Copy image files into a class of the base data, then make the base set follow.

    CLASS may be new. If the change is refused, the copies are removed again.
    """
    with _errors(options["model_repository"]), images_added(options["base_data"], class_name, files):
        _print_outcome(
            change_base_set(BaseSetOptions(**options), strict=strict, progress=_progress()), wants_json=wants_json
        )


@main.command()
@click.argument("images", nargs=-1, required=True, metavar="CLASS/FILE...")
@_common_options
@_image_options
@_skip_option
@click.option(
    "--to",
    "destination",
    type=click.Path(file_okay=False, path_type=Path),
    show_default="the base data's name with .removed",
    help="Folder that the images are moved to.",
)
@click.option("--yes", is_flag=True, help="Allow that more than half of the base images go.")
def remove(images: tuple[str, ...], *, wants_json: bool, destination: Path | None, yes: bool, **options: Any) -> None:
    """Move images out of the base data, then make the base set follow.

    If the change is refused, the images are moved back.
    """
    base_data = options["base_data"].resolve()
    destination = destination or _removed_folder(base_data)
    with _errors(options["model_repository"]), images_removed(base_data, images, destination):
        outcome = change_base_set(BaseSetOptions(**options), large_removals=yes, progress=_progress())
        _print_outcome(outcome, wants_json=wants_json)
        click.echo(f"moved to {destination}", err=True)


@main.command()
@click.argument("images", nargs=-1, required=True, metavar="CLASS/FILE...")
@_common_options
@_image_options
@_skip_option
@click.option(
    "--removed",
    type=click.Path(file_okay=False, path_type=Path),
    show_default="the base data's name with .removed",
    help="Folder that base-set remove has moved images to.",
)
@click.option("--yes", is_flag=True, help="Allow that more than half of the base images go.")
def forget(images: tuple[str, ...], *, wants_json: bool, removed: Path | None, yes: bool, **options: Any) -> None:
    """Remove images for good: somebody has withdrawn consent.

    Deletes the images from the base data and from the images removed earlier, and
    their names and embeddings from the base set that is served, from the cache and
    from the memory of running servers. Versions of the repository that hold them
    go, and so does the repository that an export has replaced (*.previous), so no
    rollback brings them back. No request fails. Lists every file that it has looked
    at, and what is out of its reach. If it is interrupted, run it again.

    Refused, with nothing changed, where an image is found nowhere, where a copy
    under another name would stay, or where no base image would remain.

    \b
    Examples:
      base-set forget face/anna.jpg -data base/
      base-set forget face/anna.jpg face/anna-2.jpg -data base/ --json > forgotten.json

    Exit status: 0 nothing of the images is left; 1 refused, or something is left and named; 2 wrong usage.
    """  # noqa: D301  (click wants the backspace itself)
    # Imported here: the other commands start faster without.
    from inference_server.base_set.forgetting.forgetting import forget as forget_images
    from inference_server.base_set.forgetting.report import forgotten_json, forgotten_text, require_nothing_remains

    removed = removed or _removed_folder(options["base_data"])
    with _errors(options["model_repository"]):
        try:
            forgotten = forget_images(
                BaseSetOptions(**options), images, removed=removed, large_removals=yes, progress=_progress()
            )
        except KeyboardInterrupt:
            raise click.ClickException(
                "interrupted: something of the images may be left. Run the command again; it goes on from there."
            ) from None
        if wants_json:
            _print_json(forgotten_json(forgotten))
        else:
            print_result(forgotten_text(forgotten))
        require_nothing_remains(forgotten)


@main.command()
@_common_options
@_image_options
@click.option(
    "--queries",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Images to ask both base sets about, now and then: a folder of images, or a folder of images for each class.",
)
@click.option("--strict", is_flag=True, help="Count a query whose label would change as a finding too.")
def check(*, wants_json: bool, queries: Path | None, strict: bool, **options: Any) -> None:
    """Show what a sync would do, without doing it.

    Lists the images that would come and go; new images that do not decode, are
    closer to another class than to their own, or are near-duplicates; new images
    that, asked as queries, would still get another label than their class; and
    with --queries, every query whose label would change.

    Exit status: 0 no new image is doubtful, 3 some are, 1 refused, 2 wrong usage.
    """
    options["skip_unreadable"] = True
    with _errors(options["model_repository"]), prepare_change(BaseSetOptions(**options), _progress()) as change:
        doubts = find_doubts(change, _progress())
        new_images = answer_new_images(change)
        compared = None
        if queries is not None:
            compared = compare_queries(
                change, queries, cache=options["cache"], batch_size=options["batch_size"], progress=_progress()
            )
        if wants_json:
            _print_json(check_json(change, doubts, new_images, compared))
        else:
            print_result(check_text(change, doubts, new_images, compared))
    if doubts or (strict and compared is not None and compared.flips):
        raise SystemExit(FOUND_EXIT_CODE)


@main.command("set")
@_common_options
@click.option(
    "-thres",
    "--sim_thres",
    type=FiniteFloatRange(-1, 1),
    help="Smallest cosine similarity at which a base image counts as a match.",
)
@click.option("--unknown_label", help="Label of a query that no base image matches; '' for none.")
@click.option(
    "--neighbors", type=click.IntRange(1, 1000), help="Number of most similar base images that an answer names."
)
@click.pass_context
def set_command(context: click.Context, /, *, wants_json: bool, **options: Any) -> None:
    """Change the threshold, the unknown label or the neighbors.

    The base images stay as they are.
    """
    if all(options[name] is None for name in ("sim_thres", "unknown_label", "neighbors")):
        raise click.UsageError("Name what to change: --sim_thres, --unknown_label or --neighbors.", context)
    with _errors(options["model_repository"]):
        _print_outcome(change_base_set(BaseSetOptions(**options), progress=_progress()), wants_json=wants_json)


@main.command()
@_common_options
def rollback(*, model_repository: Path, wants_json: bool) -> None:
    """Go back to the version before the one that answers."""
    with _errors(model_repository):
        repository, before, version, servers = roll_back(model_repository)
        notes = not_reached(repository, servers)
        if wants_json:
            values = {"version": version, "version_before": before, "servers": servers, "notes": notes}
            _print_json({"repository": str(repository), **values})
        else:
            lines = [f"version {version}, in place of {before}", *(f"note: {note}" for note in notes)]
            print_result("\n".join([*lines, served_text(servers)]))


@contextlib.contextmanager
def _errors(repository: Path) -> Iterator[None]:
    with explained_errors(repository):
        try:
            require_extras("server")
            yield
        except (ServerError, MissingExtraError) as error:
            raise click.ClickException(str(error)) from error


def _progress() -> Progress:
    shown: Progress = click.get_current_context().obj
    return shown


def _removed_folder(base_data: Path) -> Path:
    folder = base_data.resolve()
    return folder.with_name(f"{folder.name}.removed")


def _print_outcome(outcome: Outcome, *, wants_json: bool) -> None:
    if wants_json:
        _print_json(outcome_json(outcome))
    else:
        print_result(outcome_text(outcome))


def _print_json(values: dict[str, Any]) -> None:
    print_result(json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False))


if __name__ == "__main__":
    main(prog_name="base-set")
