"""Packages of data: pip itself fetches from a folder of wheels, a script in npm's place from one of archives."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shoal.data.packages import Package, cache
from shoal.errors import DataError, PackageError, SettingError

FILES = {"flock/data/birds.csv": b"name\nheron\n", "flock/data/fish.csv": b"name\nroach\n", "flock/notes.txt": b"none"}
CSV = {name: data for name, data in FILES.items() if name.endswith(".csv")}


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    """A cache of its own, and pip with a folder as its only index."""
    (tmp_path / "index").mkdir()
    for name, value in {
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path / "index"),
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def index(tmp_path):
    return tmp_path / "index"


def wheel(folder, files=FILES):
    """A wheel in the folder, and the package that it is."""
    path = folder / "flock-1.0-py3-none-any.whl"
    about = {
        "flock-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: flock\nVersion: 1.0\n",
        "flock-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "flock-1.0.dist-info/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**files, **about}.items():
            archive.writestr(name, data)
    return Package("flock", "1.0", digest(path))


def npm_archive(folder, files=FILES):
    path = folder / "flock-1.0.0.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return Package("flock", "1.0.0", digest(path), index="npm")


def npm(tmp_path, monkeypatch, script):
    """A script where npm would be."""
    tool = tmp_path / "bin" / "npm"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def kept():
    """What is in the cache."""
    return sorted(path.name for path in cache().rglob("*") if path.is_file())


def test_pip_fetches_a_wheel_and_its_files_are_read(index, capfd):
    package = wheel(index)
    assert package.cached is None
    assert package.read("data/*.csv") == CSV
    assert package.cached == cache() / "packages" / "flock-1.0.whl"
    assert capfd.readouterr().out == ""


def test_what_is_in_the_cache_is_not_fetched_again(index):
    package = wheel(index)
    first = package.fetch()
    (index / "flock-1.0-py3-none-any.whl").unlink()
    assert package.fetch() == first
    assert package.read("data/*.csv") == CSV


def test_an_archive_that_was_damaged_in_the_cache_is_fetched_again(index):
    package = wheel(index)
    package.fetch().write_bytes(b"damaged")
    assert package.cached is None
    assert digest(package.fetch()) == package.sha256


def test_an_archive_of_another_hash_is_refused_and_not_kept(index):
    found = wheel(index).sha256
    wanted = "0" * 64
    with pytest.raises(PackageError, match=f"not flock 1.0: its SHA-256 is {found}, not {wanted}: it was not kept"):
        Package("flock", "1.0", wanted).fetch()
    assert kept() == []
    assert issubclass(PackageError, DataError)


def test_without_an_index_it_is_said_what_to_do():
    with pytest.raises(PackageError, match=r"flock 1.0 could not be fetched \(pip said: No matching .*--data .*path="):
        Package("flock", "1.0", "0" * 64).fetch()
    assert kept() == []


def test_pip_never_builds_a_source_archive_whose_hash_nobody_saw(index, tmp_path):
    with tarfile.open(index / "flock-1.0.tar.gz", "w:gz") as archive:
        code = f"open({str(tmp_path / 'ran')!r}, 'w')".encode()
        member = tarfile.TarInfo("flock-1.0/setup.py")
        member.size = len(code)
        archive.addfile(member, io.BytesIO(code))
    with pytest.raises(PackageError, match="could not be fetched"):
        Package("flock", "1.0", "0" * 64).fetch()
    assert not (tmp_path / "ran").exists()


def test_a_file_named_pip_where_one_happens_to_be_is_not_run(index, tmp_path):
    (tmp_path / "pip.py").write_text("raise SystemExit('ran')")
    package = wheel(index)
    with contextlib.chdir(tmp_path):
        assert digest(package.fetch()) == package.sha256


def test_two_that_fetch_at_once_do_not_meet(index):
    package = wheel(index)
    with ThreadPoolExecutor(2) as both:
        first, second = both.map(lambda _: package.fetch(), range(2))
    assert first == second
    assert kept() == ["flock-1.0.whl"]
    assert package.cached == first


def test_npm_packs_an_archive_and_its_files_are_read(tmp_path, index, monkeypatch):
    package = npm_archive(index)
    npm(tmp_path, monkeypatch, f"""
[ "$1 $2" = "pack flock@1.0.0" ] || exit 1
for last; do :; done
cp {index}/flock-1.0.0.tgz "$last"
""")  # fmt: skip
    assert package.read("data/*.csv") == {f"package/{name}": data for name, data in CSV.items()}
    assert kept() == ["flock-1.0.0.tgz"]


def test_what_npm_complains_of_is_told(tmp_path, monkeypatch):
    npm(tmp_path, monkeypatch, "echo 'npm error code ENOTFOUND' >&2; echo 'npm error more' >&2; exit 1")
    with pytest.raises(PackageError, match=r"npm said: npm error code ENOTFOUND\).*npm pack flock@1.0.0"):
        Package("flock", "1.0.0", "0" * 64, index="npm").fetch()


def test_a_machine_without_npm_is_told_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PackageError, match=r"flock 1.0.0 is fetched with npm, which is not installed"):
        Package("flock", "1.0.0", "0" * 64, index="npm").fetch()


def test_a_cache_that_cannot_be_written_is_told_so(tmp_path, monkeypatch, index):
    package = wheel(index)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(PackageError, match=r"flock 1.0 cannot be kept in .*: set XDG_CACHE_HOME"):
        package.fetch()


def test_an_archive_of_ones_own_is_checked_too(tmp_path):
    package = wheel(tmp_path)
    own = tmp_path / "own.zip"
    own.write_bytes((tmp_path / "flock-1.0-py3-none-any.whl").read_bytes())
    assert package.read("data/*.csv", own) == CSV
    own.write_bytes(own.read_bytes() + b" ")
    with pytest.raises(PackageError, match=f"own.zip is not flock 1.0: its SHA-256 is {digest(own)}, not"):
        package.read("data/*.csv", own)
    assert kept() == []


def test_a_folder_of_files_is_taken_as_it_is(tmp_path):
    for name, data in {"data/birds.csv": b"mine", "data/packed.csv.gz": gzip.compress(b"small"), "x.csv": b""}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    package = Package("flock", "1.0", "0" * 64)
    assert package.read("data/*.csv*", tmp_path) == {"data/birds.csv": b"mine", "data/packed.csv.gz": b"small"}
    assert package.read("data/*.csv", tmp_path / "data") == {"birds.csv": b"mine"}


def test_a_path_without_the_files_is_told_so(tmp_path):
    package = wheel(tmp_path)
    with pytest.raises(PackageError, match="there is no file or folder"):
        package.read("data/*.csv", tmp_path / "nowhere")
    with pytest.raises(PackageError, match=r"holds no file data/\*.dat, as flock 1.0 does"):
        package.read("data/*.dat", tmp_path)


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b broken", b"PK\x05\x06" + bytes(17)])
def test_an_archive_that_cannot_be_read_is_told_so(tmp_path, content):
    broken = tmp_path / "broken.whl"
    broken.write_bytes(content)
    with pytest.raises(PackageError, match=r"broken.whl cannot be read|broken.whl holds no file"):
        Package("flock", "1.0", digest(broken)).read("data/*.csv", broken)


def test_a_compressed_file_that_is_cut_short_is_told_so(tmp_path):
    (tmp_path / "birds.csv.gz").write_bytes(gzip.compress(b"name\nheron\n")[:-9])
    with pytest.raises(PackageError, match="cannot be read"):
        Package("flock", "1.0", "0" * 64).read("*.csv.gz", tmp_path)


@pytest.mark.parametrize("make", [wheel, npm_archive])
def test_no_member_is_written_where_the_archive_says(tmp_path, make):
    inner = tmp_path / "inner"
    inner.mkdir()
    package = make(inner, {"../../data/evil.csv": b"x"})
    before = sorted(tmp_path.rglob("*"))
    (read,) = package.read("data/*.csv", next(inner.glob("flock*"))).values()
    assert read == b"x"
    assert sorted(tmp_path.rglob("*")) == before


def test_a_pin_is_a_whole_hash_and_an_index_that_is_known():
    with pytest.raises(SettingError, match="64 hexadecimal digits"):
        Package("flock", "1.0", "856c99ddf50c497d")
    with pytest.raises(SettingError, match="pypi or npm, not 'conda'"):
        Package("flock", "1.0", "0" * 64, index="conda")


def test_the_cache_is_where_the_person_says(monkeypatch, tmp_path):
    assert cache() == tmp_path / "cache" / "shoal"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache() == Path.home() / ".cache" / "shoal"
