"""The places where traces of a base image may be: every file of a repository, of its cache, and of its servers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inference_export.base_set.embedding_cache import list_cache_files
from inference_export.progress import Progress
from inference_export.repository.publishing import previous_path
from inference_export.repository.staging import staging_folders
from inference_server.base_set.forgetting.traces import Traces
from inference_server.errors import ServerError
from inference_server.supervision.replacing import server_regions
from inference_server.triton.access import find_access_file, find_servers, read_access

REPOSITORY, PREVIOUS, STAGING = "model repository", "replaced repository", "left-over staging folder"
CACHE, ACCESS, SHARED_MEMORY = "cache", "access file", "shared memory"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A file that was looked at.

    Attributes:
        kind: What the file is part of.
        file: The file.
        found: What of the images it holds, as ``Traces.find_in`` says it.
    """

    kind: str
    file: Path
    found: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where to look.

    Attributes:
        repository: The model repository, resolved.
        cache: Folder of cached embeddings.
    """

    repository: Path
    cache: Path

    def search(self, traces: Traces, progress: Progress, label: str) -> list[Place]:
        """Search every file of every place.

        Args:
            traces: What to look for.
            progress: Shows how many files have been searched.
            label: Name of this step, for the progress.

        Raises:
            OSError: A file can't be read.
        """
        listed = list(self._files())
        places = []
        with progress(label, len(listed)) as advance:
            for kind, file in listed:
                places.append(Place(kind=kind, file=file, found=tuple(traces.find_in(file))))
                advance(1)
        return places

    def _files(self) -> Iterator[tuple[str, Path]]:
        folders = [(REPOSITORY, self.repository), (PREVIOUS, previous_path(self.repository))]
        folders += [(STAGING, folder) for folder in staging_folders(self.repository)]
        for kind, folder in folders:
            for parent, subfolders, names in os.walk(folder):
                subfolders.sort()
                yield from ((kind, Path(parent, name)) for name in sorted(names) if Path(parent, name).is_file())
        yield from ((CACHE, file) for file in list_cache_files(self.cache))
        for port in find_servers(self.repository):
            if file := find_access_file(port):
                yield ACCESS, file
            try:
                regions = server_regions(read_access(port))
            except ServerError:  # it has ended, and its regions with it
                continue
            yield from ((SHARED_MEMORY, region) for region in sorted(regions))
