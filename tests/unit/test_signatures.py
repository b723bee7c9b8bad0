"""SSH signatures: made and checked by the real ssh-keygen, and put into an archive without changing its id."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import PATH

from preserve.digest import Digest, FilePin
from preserve.documents import bag
from preserve.documents.archive import TAG_FILES, TAG_MANIFEST
from preserve.errors import DigestMismatch, MachineError, UserError
from preserve.operations.places import Settings
from preserve.operations.sign import add_signature as sign_archive
from preserve.operations.sign import sign as sign_verified
from preserve.signatures import check, read_signature, sign
from preserve.stores.crate_writer import Item, write_crate
from preserve.stores.crate_zip import CrateZip
from preserve.stores.damage import Damaged

DATA = b"0" * 64 + b"  bagit.txt\n"
TAGS = {name: name.encode() for name in TAG_FILES}
TABLE = bag.manifest({name: Digest.of(data) for name, data in TAGS.items()})
PASSPHRASE = "secret"  # noqa: S105  (of keys that live as long as a test)
KINDS = {"ed25519": (), "rsa": ("-b", "2048"), "ecdsa": ("-b", "256")}

AT_A_TERMINAL = """
import os, pty, sys
from pathlib import Path
child, terminal = pty.fork()
if child == 0:
    from preserve.signatures import check, sign
    check(b"data", sign(b"data", Path(sys.argv[1])))
    print("SIGNED", flush=True)
    os._exit(0)
try:
    while shown := os.read(terminal, 1000):
        print(shown.decode())
        if b"passphrase" in shown:
            os.write(terminal, sys.argv[2].encode() + bytes([10]))
except OSError:
    pass  # the child has closed its side
"""


def keygen(*options: str, data: bytes = b"", environment: dict[str, str] | None = None) -> bytes:
    """Run ssh-keygen, which must be there."""
    done = subprocess.run(
        ["ssh-keygen", *options], check=True, input=data, capture_output=True, env={"PATH": PATH, **(environment or {})}
    )
    return done.stdout


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Makes keys in a folder."""

    folder: Path

    def key(self, name: str, kind: str = "ed25519", passphrase: str = "") -> Path:
        """Make a key; its public half lies beside it."""
        path = self.folder / name
        keygen("-q", "-t", kind, *KINDS[kind], "-N", passphrase, "-C", name, "-f", str(path))
        return path

    def allow(self, *lines: str) -> Path:
        """Write an allowed-signers file; ``{name}`` stands for a key's public half."""
        texts = {path.stem: path.read_text().strip() for path in self.folder.glob("*.pub")}
        path = self.folder / "allowed signers"
        path.write_text("".join(line.format(**texts) + "\n" for line in lines))
        return path


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    (tmp_path / "keys").mkdir()
    return Keys(folder=tmp_path / "keys")


class TestRoundTrip:
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_kind_of_key(self, keys: Keys, kind: str) -> None:
        key = keys.key("alice", kind)
        made = sign(DATA, key)
        assert check(DATA, made, keys.allow("alice@example.org {alice}")) == "alice@example.org"
        shown = keygen("-l", "-f", f"{key}.pub").decode().split()[1]
        assert read_signature(made).fingerprint == shown

    def test_ssh_keygen_itself_accepts_it(self, keys: Keys, tmp_path: Path) -> None:
        (tmp_path / "made.sig").write_bytes(sign(DATA, keys.key("alice")))
        allowed = str(keys.allow("alice@example.org {alice}"))
        options = ("-n", "preserve-archive", "-I", "alice@example.org", "-f", allowed, "-s", str(tmp_path / "made.sig"))
        assert b"Good" in keygen("-Y", "verify", *options, data=DATA)

    def test_its_name_is_of_the_keys_fingerprint(self, keys: Keys) -> None:
        key = keys.key("alice")
        blob = base64.b64decode(Path(f"{key}.pub").read_text().split()[1])
        assert read_signature(sign(DATA, key)).name == f"signatures/{hashlib.sha256(blob).hexdigest()[:16]}.sig"

    def test_a_key_in_an_agent(self, keys: Keys, tmp_path: Path, agent: str) -> None:
        key = keys.key("alice", passphrase=PASSPHRASE)
        asked = tmp_path / "answer"
        asked.write_text(f"#!/bin/sh\necho {PASSPHRASE}\n")
        asked.chmod(0o700)
        environment = {"PATH": PATH, "SSH_AUTH_SOCK": agent, "SSH_ASKPASS": str(asked), "SSH_ASKPASS_REQUIRE": "force"}
        subprocess.run(["ssh-add", "-q", str(key)], check=True, env=environment, capture_output=True)
        key.unlink()
        made = sign(DATA, Path(f"{key}.pub"), agent=agent)
        assert check(DATA, made, keys.allow("alice {alice}")) == "alice"
        with pytest.raises(UserError, match="ssh-agent does not hold"):
            sign(DATA, Path(f"{key}.pub"))

    @pytest.fixture
    def agent(self, tmp_path: Path) -> Iterator[str]:
        """The socket of an empty ssh-agent."""
        socket = str(tmp_path / "agent")
        process = subprocess.Popen(["ssh-agent", "-D", "-a", socket], env={"PATH": PATH}, stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            process.stdout.readline()  # it says so once the socket is there
            yield socket
        finally:
            process.terminate()
            process.communicate()


class TestWhoSigned:
    @pytest.fixture
    def made(self, keys: Keys) -> bytes:
        keys.key("bob")
        return sign(DATA, keys.key("alice"))

    @pytest.mark.parametrize(
        ("lines", "expected"),
        [
            (("alice@example.org {alice}",), "alice@example.org"),
            (("bob@example.org {bob}", "alice@example.org {alice}"), "alice@example.org"),
            (("alice@example.org,a@example.org {alice}",), "alice@example.org"),
            (('alice@example.org namespaces="preserve-archive" {alice}',), "alice@example.org"),
            (('alice@example.org namespaces="git,preserve-archive" {alice}',), "alice@example.org"),
            (("# nobody yet", ""), None),
            (("bob@example.org {bob}",), None),
            (('alice@example.org namespaces="git" {alice}',), None),
            (('alice@example.org valid-before="20200101" {alice}',), None),
            (('alice@example.org valid-after="20990101" {alice}',), None),
            (('old@example.org valid-before="20200101" {alice}', "new@example.org {alice}"), "new@example.org"),
        ],
    )
    def test_as_the_allowed_signers_say(
        self, keys: Keys, made: bytes, lines: tuple[str, ...], expected: str | None
    ) -> None:
        assert check(DATA, made, keys.allow(*lines)) == expected

    def test_nobody_without_allowed_signers(self, made: bytes) -> None:
        assert check(DATA, made) is None

    def test_allowed_signers_that_are_not_there(self, keys: Keys, made: bytes) -> None:
        with pytest.raises(UserError, match="nobody: No such file"):
            check(DATA, made, keys.folder / "nobody")

    def test_allowed_signers_with_a_faulty_line(self, keys: Keys, made: bytes) -> None:
        with pytest.raises(UserError, match="allowed signers:2: "):
            check(DATA, made, keys.allow("# first", "alice@example.org ssh-ed25519 nokey"))


class TestKeysThatCannotSign:
    def refused(self, key: Path, message: str, **keywords: str) -> str:
        with pytest.raises(UserError, match=message) as caught:
            sign(DATA, key, **keywords)  # type: ignore[arg-type]
        assert str(key) in caught.value.message
        return str(caught.value.hint)

    def test_no_such_key(self, keys: Keys) -> None:
        assert "ssh-keygen -t ed25519" in self.refused(keys.folder / "nobody", "there is no key")

    def test_no_key_at_all(self, keys: Keys) -> None:
        (keys.folder / "text").write_text("no key\n")
        self.refused(keys.folder / "text", "ssh-keygen cannot sign with it: ")

    def test_a_key_that_others_can_read(self, keys: Keys) -> None:
        key = keys.key("alice")
        key.chmod(0o644)
        assert f"chmod 600 {key}" in self.refused(key, "others may read it")

    def test_an_agent_that_is_not_there(self, keys: Keys) -> None:
        key = keys.key("alice")
        key.unlink()
        public = Path(f"{key}.pub")
        self.refused(public, "ssh-agent does not hold", agent=str(keys.folder / "nowhere"))

    def test_a_passphrase_and_no_terminal(self, keys: Keys) -> None:
        key = keys.key("alice", passphrase=PASSPHRASE)
        program = "import sys; from pathlib import Path; from preserve import signatures, errors\n"
        program += "try: signatures.sign(b'x', Path(sys.argv[1]))\nexcept errors.UserError as e: print(e, '|', e.hint)"
        done = subprocess.run(
            [sys.executable, "-c", program, str(key)],
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,
            timeout=60,
        )
        assert "its passphrase is wrong, or there is no terminal" in done.stdout
        assert f"ssh-add {key}" in done.stdout

    def test_a_passphrase_is_asked_for_on_the_terminal(self, keys: Keys) -> None:
        key = keys.key("alice", passphrase=PASSPHRASE)
        program = [sys.executable, "-c", AT_A_TERMINAL, str(key), PASSPHRASE]
        done = subprocess.run(program, check=True, capture_output=True, text=True, timeout=60)
        assert "Enter passphrase" in done.stdout
        assert "SIGNED" in done.stdout
        assert PASSPHRASE not in done.stdout

    def test_the_users_own_settings_are_not_seen(
        self, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mark, asked = tmp_path / "mark", tmp_path / "asked"
        asked.write_text(f"#!/bin/sh\necho ran > {mark}\n")
        asked.chmod(0o755)
        for name, value in (("SSH_ASKPASS", str(asked)), ("SSH_ASKPASS_REQUIRE", "force"), ("DISPLAY", ":0")):
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "socket"))
        key = keys.key("alice")
        assert check(DATA, sign(DATA, key), keys.allow("alice {alice}")) == "alice"
        assert not mark.exists()

    def test_without_ssh_keygen(self, keys: Keys) -> None:
        key = keys.key("alice")
        with pytest.raises(MachineError, match="ssh-keygen cannot be started") as caught:
            sign(DATA, key, search_path="/nonexistent")
        assert caught.value.hint == "apt install openssh-client"

    def test_an_ssh_keygen_that_is_too_old(self, keys: Keys, tmp_path: Path) -> None:
        old = tmp_path / "old" / "ssh-keygen"
        old.parent.mkdir()
        old.write_text("#!/bin/sh\necho 'unknown option -- Y' >&2\nexit 1\n")
        old.chmod(0o755)
        key = keys.key("alice")
        with pytest.raises(MachineError, match="knows no signatures"):
            sign(DATA, key, search_path=f"{old.parent}:/usr/bin:/bin")


class TestInAnArchive:
    @pytest.fixture
    def archive(self, tmp_path: Path) -> Path:
        """The smallest file in an archive's form: no analysis, but all that a signature is about."""
        return self.written(tmp_path / "a.crate.zip", {"data/a": b"a\n", **TAGS, TAG_MANIFEST: TABLE})

    def written(self, path: Path, files: dict[str, bytes]) -> Path:
        write_crate(
            path, [Item(name=n, pin=FilePin(sha256=Digest.of(d), size=len(d)), source=d) for n, d in files.items()]
        )
        return path

    def contents(self, archive: Path) -> dict[str, bytes]:
        with CrateZip(archive) as opened:
            assert list(opened.check_form()) == []
            return {name: b"".join(opened.chunks(name)) for name in opened.files()}

    def test_the_signature_comes_in_and_all_else_stays(self, archive: Path, keys: Keys) -> None:
        before = self.contents(archive)
        done = sign_archive(archive, keys.key("alice"), Settings())
        after = self.contents(archive)
        assert (done.added, done.archive_id) == (True, Digest.of(TABLE))
        assert check(TABLE, after.pop(done.name), keys.allow("alice {alice}")) == "alice"
        assert after == before

    def test_who_may_read_it_stays_and_a_link_to_it_too(self, archive: Path, keys: Keys, tmp_path: Path) -> None:
        archive.chmod(0o640)
        link = tmp_path / "latest.crate.zip"
        link.symlink_to(archive.name)
        done = sign_archive(link, keys.key("alice"), Settings())
        assert link.is_symlink()
        assert done.name in self.contents(archive)
        assert archive.stat().st_mode & 0o777 == 0o640

    def test_several_signers_in_any_order_give_one_file(self, archive: Path, keys: Keys, tmp_path: Path) -> None:
        other = tmp_path / "other.crate.zip"
        other.write_bytes(archive.read_bytes())
        names = ("alice", "bob", "carol")
        made = {name: keys.key(name) for name in names}
        for name in names:
            assert sign_archive(archive, made[name], Settings()).added
        for name in reversed(names):
            sign_archive(other, made[name], Settings())
        assert archive.read_bytes() == other.read_bytes()
        assert sum(name.startswith("signatures/") for name in self.contents(archive)) == 3

    @pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
    def test_twice_with_one_key_changes_nothing(self, archive: Path, keys: Keys, kind: str) -> None:
        key = keys.key("alice", kind)
        first = sign_archive(archive, key, Settings())
        before = archive.read_bytes()
        second = sign_archive(archive, key, Settings())
        assert (first.added, second.added, first.name) == (True, False, second.name)
        assert archive.read_bytes() == before

    def test_a_signature_of_the_key_that_is_none(self, archive: Path, keys: Keys, tmp_path: Path) -> None:
        key = keys.key("alice")
        wrong = sign(b"something else", key)
        items = {**self.contents(archive), read_signature(wrong).name: wrong}
        self.written(tmp_path / "wrong.crate.zip", items)
        with pytest.raises(DigestMismatch, match=r"signatures/[0-9a-f]{16}\.sig is there already: the signature of"):
            sign_archive(tmp_path / "wrong.crate.zip", key, Settings())

    def test_a_damaged_archive_is_not_signed(self, archive: Path, keys: Keys) -> None:
        data = bytearray(archive.read_bytes())
        data[10] ^= 1  # the time in the first local header
        archive.write_bytes(data)
        key = keys.key("alice")
        with pytest.raises(Damaged, match="data/a"):
            sign_archive(archive, key, Settings())
        assert archive.read_bytes() == data

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"README.md": b"other"}, "README.md: is not what the tag manifest says"),
            ({TAG_MANIFEST: TABLE.replace(b"  README", b" README")}, "tagmanifest-sha256.txt: line 2: "),
            ({TAG_MANIFEST: TABLE[:-1]}, "tagmanifest-sha256.txt: line 7: the last line does not end"),
            ({TAG_MANIFEST: TABLE.split(b"\n", 1)[1]}, "CITATION.cff: is not what the tag manifest says"),
        ],
    )
    def test_tables_that_lie_are_not_signed(
        self, keys: Keys, tmp_path: Path, changes: dict[str, bytes], message: str
    ) -> None:
        files = {"data/a": b"a\n", **TAGS, TAG_MANIFEST: TABLE} | changes
        key = keys.key("alice")
        with pytest.raises(Damaged, match=message):
            sign_archive(self.written(tmp_path / "lies.crate.zip", files), key, Settings())

    def test_an_unpacked_one(self, keys: Keys, tmp_path: Path) -> None:
        key = keys.key("alice")
        with pytest.raises(UserError, match="is a folder"):
            sign_verified(tmp_path, key, Settings())
