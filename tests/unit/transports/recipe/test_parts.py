"""What recipes are built with: trees and their tar, Debian packages made here, dependencies, mirrors, wheels."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from preserve.digest import Digest
from preserve.documents.lockfile import ImagePin, PackagePin
from preserve.errors import DigestMismatch, MachineError, UserError
from preserve.oci import Layout
from preserve.transports.recipe.apt import Mirror, mirrors_for
from preserve.transports.recipe.child import allowed, call
from preserve.transports.recipe.deb import control_of, read_control
from preserve.transports.recipe.debian import assemble, needed
from preserve.transports.recipe.folder import read_folder
from preserve.transports.recipe.parcels import Parcels
from preserve.transports.recipe.transport import difference
from preserve.transports.recipe.tree import Entry, Spool, Tree, merged, pointed_to
from preserve.transports.recipe.wheels import Target, target_of, unpack_wheel

TARGET = Target(python="3.11", glibc=(2, 36), machine="x86_64")


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    with Spool(tmp_path) as spool:
        yield Tree(spool)


def names(tree: Tree) -> list[str]:
    return sorted(path for path, entry in tree.entries.items() if not entry.is_folder)


def members(tree: Tree) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(tree.tar()))) as tar:
        return {member.name: member for member in tar}


class TestTree:
    def test_the_tar_has_no_owner_time_or_order_of_its_own(self, tree: Tree) -> None:
        tree.file("b/file", b"text")
        tree.file("a/run", b"#!", mode=0o755)
        tree.link("c", "b/file")
        found = members(tree)
        assert list(found) == ["a", "a/run", "b", "b/file", "c"]
        assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in found.values()} == {(0, 0, "", "", 0)}
        assert [found[name].mode for name in ("a", "a/run", "b/file")] == [0o755, 0o755, 0o644]

    def test_one_content_twice_is_a_hard_link_but_empty_files_are_not(self, tree: Tree) -> None:
        extent = tree.spool.add_bytes(b"content")
        for name in ("z", "a", "m"):
            tree.add(name, Entry(mode=0o644, content=extent))
        tree.file("e1", b"")
        tree.file("e2", b"")
        found = members(tree)
        assert [(m.name, m.linkname) for m in found.values() if m.islnk()] == [("m", "a"), ("z", "a")]
        assert found["e2"].isreg()

    def test_long_and_foreign_names_survive(self, tree: Tree) -> None:
        name = "é/" + "x" * 150 + "/" + "y" * 120
        tree.file(name, b"1")
        assert name in members(tree)

    def test_the_usr_merge_moves_paths(self, tree: Tree) -> None:
        tree.file("bin/ls", b"")
        assert "usr/bin/ls" in tree.entries
        assert "bin/ls" in tree
        assert [merged(path) for path in ("lib64/ld.so", "lib", "etc/x", "libx/y")] == [
            "usr/lib64/ld.so",
            "lib",
            "etc/x",
            "libx/y",
        ]

    def test_a_file_is_no_parent(self, tree: Tree) -> None:
        tree.file("a", b"", origin="one")
        with pytest.raises(UserError, match="/a is a file or link of one"):
            tree.file("a/b", b"", origin="two")

    def test_links_stay_inside(self) -> None:
        assert pointed_to("a/b", "../../../../etc/x") == "etc/x"
        assert pointed_to("a/b/c", "../d") == "a/d"
        assert pointed_to("a/b", "/x/./y") == "x/y"


Deb = Callable[..., PackagePin]
Content = bytes | str | None  # a file's bytes, a link's target, or None for a folder


def deb_bytes(
    control: str, files: dict[str, Content], *, suffix: str = ".xz", hard: dict[str, str] | None = None
) -> bytes:
    """A Debian package; names as dpkg writes them, with modes and owners that must not come through."""

    def tar_of(entries: dict[str, Content]) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, content in entries.items():
                info = tarfile.TarInfo("./" + name)
                info.mode, info.uid, info.mtime = 0o4711, 77, 12345
                if content is None:
                    info.type, info.mode = tarfile.DIRTYPE, 0o700
                elif isinstance(content, str):
                    info.type, info.linkname = tarfile.SYMTYPE, content
                else:
                    info.size = len(content)
                tar.addfile(info, io.BytesIO(content if isinstance(content, bytes) else b""))
            for name, first in (hard or {}).items() if entries is files else ():
                info = tarfile.TarInfo("./" + name)
                info.type, info.linkname = tarfile.LNKTYPE, "./" + first
                tar.addfile(info)
        return buffer.getvalue()

    pack = {".xz": lzma.compress, ".gz": gzip.compress, "": bytes, ".zst": lambda data: b"zstd" + data[:9]}[suffix]
    packed = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": gzip.compress(tar_of({"control": control.encode()})),
        f"data.tar{suffix}": pack(tar_of(files)),
    }
    return b"!<arch>\n" + b"".join(
        f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
        for name, data in packed.items()
    )


@pytest.fixture
def parcels(tmp_path: Path) -> Parcels:
    return Parcels(tmp_path / "parcels")


@pytest.fixture
def deb(parcels: Parcels, tmp_path: Path) -> Deb:
    def make(name: str, files: dict[str, Content], *, fields: str = "", **options: object) -> PackagePin:
        path = tmp_path / f"{name}.deb"
        path.write_bytes(deb_bytes(f"Package: {name}\nVersion: 1\n{fields}", files, **options))
        return PackagePin(kind="debian", name=name, version="1", sha256=parcels.put(path))

    return make


SHELL: dict[str, Content] = {"bin": None, "bin/sh": b"shell"}


class TestDebianPackages:
    @pytest.mark.parametrize("suffix", [".xz", ".gz", ""])
    def test_files_come_out_with_common_modes(
        self, deb: Deb, parcels: Parcels, tree: Tree, tmp_path: Path, suffix: str
    ) -> None:
        pin = deb("dash", {**SHELL, "var/lib/x": None}, suffix=suffix)
        assemble((pin,), parcels, tree, scratch=tmp_path)
        found = members(tree)
        assert found["usr/bin/sh"].mode == 0o755, "no setuid"
        assert found["var/lib/x"].mode == 0o755
        assert found["tmp"].mode == 0o1777
        assert (found["bin"].linkname, found["lib64"].linkname) == ("usr/bin", "usr/lib64")
        assert {"work", "proc", "dev", "etc/passwd", "etc/resolv.conf", "var/tmp"} <= set(found)

    def test_manuals_go_and_copyright_stays(self, deb: Deb, parcels: Parcels, tree: Tree, tmp_path: Path) -> None:
        extra: dict[str, Content] = {
            "usr/share/doc/dash/copyright": b"c",
            "usr/share/doc/dash/changelog.gz": b"c",
            "usr/share/man/man1/dash.1.gz": b"m",
            "usr/share/locale/de/x.mo": b"l",
            "usr/share/doc/libother": "dash",
        }
        assemble((deb("dash", {**SHELL, **extra}),), parcels, tree, scratch=tmp_path)
        kept = [name for name in names(tree) if name.startswith("usr/share")]
        assert kept == ["usr/share/doc/dash/copyright", "usr/share/doc/libother"]

    def test_links_that_the_usr_merge_moves_still_point_right(
        self, deb: Deb, parcels: Parcels, tree: Tree, tmp_path: Path
    ) -> None:
        links: dict[str, Content] = {"lib/x/up": "../../usr/share/y", "bin/same": "/usr/bin/same", "lib/x/near": "z"}
        assemble((deb("dash", {**SHELL, **links, "usr/bin/same": b"1"}),), parcels, tree, scratch=tmp_path)
        assert tree.entries["usr/lib/x/up"].target == "/usr/share/y"
        assert tree.entries["usr/lib/x/near"].target == "z"
        assert tree.read("bin/same") == b"1"

    def test_hard_links_stay_one_file(self, deb: Deb, parcels: Parcels, tree: Tree, tmp_path: Path) -> None:
        pin = deb("dash", SHELL, hard={"usr/bin/zsh": "bin/sh"})
        assemble((pin,), parcels, tree, scratch=tmp_path)
        assert members(tree)["usr/bin/zsh"].linkname == "usr/bin/sh"

    def test_two_packages_with_one_file_are_named(self, deb: Deb, parcels: Parcels, tree: Tree, tmp_path: Path) -> None:
        pins = (deb("aa", {**SHELL, "etc/x": b"1"}), deb("bb", {"etc/x": b"2"}))
        with pytest.raises(UserError, match="aa and bb both have /etc/x"):
            assemble(pins, parcels, tree, scratch=tmp_path)

    @pytest.mark.parametrize(("replacing", "winner"), [("aa", b"1"), ("bb", b"2")])
    def test_who_replaces_wins(
        self, deb: Deb, parcels: Parcels, tree: Tree, tmp_path: Path, replacing: str, winner: bytes
    ) -> None:
        fields = {"aa": "Replaces: bb (<< 2)\n", "bb": "Replaces: other, aa\n"}
        pins = tuple(
            deb(name, {**SHELL, "etc/x": data}, fields=fields[name] if name == replacing else "")
            for name, data in (("aa", b"1"), ("bb", b"2"))
        )
        assemble(pins, parcels, tree, scratch=tmp_path)
        assert tree.read("etc/x") == winner

    def test_an_image_without_a_shell_is_refused(self, deb: Deb, parcels: Parcels, tree: Tree, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no /bin/sh"):
            assemble((deb("aa", {"etc/x": b"1"}),), parcels, tree, scratch=tmp_path)

    def test_what_is_no_package_of_debian_is_said(self, deb: Deb, parcels: Parcels, tree: Tree, tmp_path: Path) -> None:
        with pytest.raises(MachineError, match=r"data\.tar\.zst is compressed"):
            assemble((deb("aa", SHELL, suffix=".zst"),), parcels, tree, scratch=tmp_path)
        broken = tmp_path / "broken.deb"
        broken.write_bytes(b"<html>not found</html>")
        with pytest.raises(MachineError, match="broken: not a Debian package"):
            control_of(broken, "broken")

    def test_a_damaged_file_is_not_used(self, deb: Deb, parcels: Parcels, tree: Tree, tmp_path: Path) -> None:
        pin = deb("dash", SHELL)
        path = parcels.path(pin.sha256, "dash")
        path.write_bytes(path.read_bytes()[:-1] + b"\1")
        with pytest.raises(DigestMismatch, match="dash"):
            assemble((pin,), parcels, tree, scratch=tmp_path)
        assert not path.exists()


class TestDependencies:
    TEXT = """
Package: app
Depends: lib (>= 2) | lib-old, shell:any,
 data [amd64]

Package: lib
Pre-Depends: base

Package: base
Depends: lib

Package: dash
Provides: shell, sh (= 1)

Package: data

Package: unneeded
"""

    def test_all_that_is_needed_is_found_and_nothing_else(self) -> None:
        controls = {control["Package"]: control for control in read_control(self.TEXT)}
        assert needed(("app",), controls) == (frozenset({"app", "lib", "base", "dash", "data"}), ())

    def test_what_is_missing_is_named(self) -> None:
        controls = {control["Package"]: control for control in read_control(self.TEXT)}
        del controls["lib"], controls["dash"]
        found, missing = needed(("app", "other"), controls)
        assert found == {"app", "data"}
        assert missing == ("lib (>= 2) | lib-old", "other", "shell:any")


class TestMirrors:
    MACHINE = (
        Mirror(site="s://one/debian", release="bookworm", component="main"),
        Mirror(site="s://one/debian", release="bookworm-backports", component="main"),
        Mirror(site="s://one/security", release="bookworm-security", component="main"),
        Mirror(site="s://two/debian", release="trixie", component="main"),
    )

    def test_a_suite_gets_its_own_mirrors_without_backports(self) -> None:
        assert mirrors_for("bookworm", self.MACHINE[::-1]) == (self.MACHINE[0], self.MACHINE[2])

    def test_another_suite_is_looked_for_at_the_same_places(self) -> None:
        assert mirrors_for("sid", self.MACHINE[:3]) == (
            Mirror(site="s://one/debian", release="sid", component="main"),
            Mirror(site="s://one/security", release="sid-security", component="main"),
        )

    def test_no_mirror_is_said(self) -> None:
        with pytest.raises(MachineError, match="no mirror for the suite sid"):
            mirrors_for("sid", self.MACHINE[1:2])


def wheel(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


class TestWheels:
    def test_files_go_where_they_belong(self, tree: Tree, tmp_path: Path) -> None:
        files = {
            "m/__init__.py": b"",
            "m/__pycache__/x.cpython-311.pyc": b"",
            "m-1.data/purelib/p.py": b"",
            "m-1.data/data/share/d": b"",
            "m-1.data/headers/h.h": b"",
            "m-1.data/scripts/s": b"#!python -E\ncode",
            "m-1.dist-info/RECORD": b"wrong",
            "m-1.dist-info/entry_points.txt": b"[console_scripts]\nrun = m.sub:C.main [extra]\n[other]\nx = y\n",
        }
        unpack_wheel(wheel(tmp_path / "w.whl", files), tree, target=TARGET, origin="m 1")
        base = "usr/local/lib/python3.11/dist-packages/"
        assert names(tree) == [
            "usr/local/bin/run",
            "usr/local/bin/s",
            "usr/local/include/python3.11/m/h.h",
            base + "m-1.dist-info/INSTALLER",
            base + "m-1.dist-info/RECORD",
            base + "m-1.dist-info/entry_points.txt",
            base + "m/__init__.py",
            base + "p.py",
            "usr/local/share/d",
        ]
        assert tree.read("usr/local/bin/s") == b"#!/usr/bin/python3\ncode"
        assert tree.read("usr/local/bin/run").endswith(b"from m.sub import C\nsys.exit(C.main())\n")
        record = tree.read(base + "m-1.dist-info/RECORD").decode().splitlines()
        assert record[0].startswith("../../../bin/run,sha256=")
        assert "m-1.dist-info/RECORD,," in record
        assert len(record) == len(names(tree))

    @pytest.mark.parametrize("name", ["../evil.py", "/evil.py", "m-1.data/scripts/../../evil"])
    def test_no_wheel_leaves_its_folder(self, tree: Tree, tmp_path: Path, name: str) -> None:
        path = wheel(tmp_path / "w.whl", {name: b"", "m-1.dist-info/WHEEL": b""})
        with pytest.raises(UserError, match="leaves the wheel"):
            unpack_wheel(path, tree, target=TARGET, origin="m 1")

    def test_what_is_no_wheel_is_said(self, tree: Tree, tmp_path: Path) -> None:
        (tmp_path / "w.whl").write_bytes(b"no zip")
        with pytest.raises(UserError, match="m 1: its file is not a wheel"):
            unpack_wheel(tmp_path / "w.whl", tree, target=TARGET, origin="m 1")

    def test_the_target_is_that_of_the_images_own_python_and_glibc(self) -> None:
        digest = Digest.of(b"")
        pins = tuple(
            PackagePin(kind="debian", name=name, version=version, sha256=digest)
            for name, version in (("libc6", "2.36-9+deb12u10"), ("python3.11-minimal", "3.11.2-6"), ("python3", "3.11"))
        )
        assert target_of(pins, machine="x86_64") == TARGET
        assert target_of(pins[:1], machine="x86_64") is None
        tags = TARGET.tags()
        assert tags[0] == "manylinux_2_36_x86_64"
        assert tags[-2:] == ("manylinux1_x86_64", "linux_x86_64")
        assert tags.index("manylinux2014_x86_64") == tags.index("manylinux_2_17_x86_64") + 1


class TestFolder:
    def test_all_that_it_names_is_read_and_comments_do_not_count(self, tmp_path: Path) -> None:
        text = "debian: {suite: bookworm, packages: [dash]}\nfiles: {opt/: data/}\n"
        (tmp_path / "image.yaml").write_text(text)
        (tmp_path / "data" / "__pycache__").mkdir(parents=True)
        (tmp_path / "data" / "__pycache__" / "a.pyc").write_bytes(b"")
        (tmp_path / "data" / "a").write_bytes(b"1")
        first = read_folder(tmp_path, "image/")
        assert first.files == {"opt/a": (b"1", False)}
        (tmp_path / "image.yaml").write_text("# a comment\n" + text)
        assert read_folder(tmp_path, "image/").digest("p", "b") == first.digest("p", "b")
        (tmp_path / "data" / "a").chmod(0o755)
        assert read_folder(tmp_path, "image/").digest("p", "b") != first.digest("p", "b")

    @pytest.mark.parametrize("line", ["files: {opt/a: nothing}", "files: {opt/: nothing/}", "python: nothing"])
    def test_what_is_missing_is_named(self, tmp_path: Path, line: str) -> None:
        (tmp_path / "image.yaml").write_text("debian: {suite: bookworm, packages: [dash]}\n" + line)
        with pytest.raises(UserError, match=r"nothing/? is not a f"):
            read_folder(tmp_path, "image/")

    def test_no_recipe_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"image/: no image recipe: neither image\.yaml nor Dockerfile"):
            read_folder(tmp_path, "image/")


class TestChildren:
    def test_only_what_apt_and_pip_need_is_passed_on(self) -> None:
        given = {"PIP_INDEX_URL": "i", "http_proxy": "p", "LD_PRELOAD": "x", "PYTHONPATH": "x", "LC_ALL": "tr_TR"}
        assert set(allowed(given)) == {"PATH", "PIP_INDEX_URL", "http_proxy", "LC_ALL", "TZ"}
        assert allowed(given)["LC_ALL"] == "C.UTF-8"

    def test_a_missing_program_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(MachineError, match="no-such-program is not installed"):
            call(("no-such-program",), environment={"PATH": "/bin"}, folder=tmp_path)


def test_other_packages_are_named_in_the_difference(tmp_path: Path) -> None:
    digest = Digest.of(b"")
    package = PackagePin(kind="debian", name="zlib1g", version="1", sha256=digest)
    pin = ImagePin(
        reference="build:i/",
        platform="p",
        manifest_digest=digest,
        config_digest=digest,
        diff_ids=(),
        packages=(package,),
    )
    built = replace(pin, packages=(replace(package, version="2"),))
    assert difference(pin, built, Layout(tmp_path)) == (
        "the pinned zlib1g 1 is not in it, and zlib1g 2 is in it that is not pinned"
    )
