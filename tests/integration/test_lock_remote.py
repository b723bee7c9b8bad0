"""preserve lock against a server that answers well, badly or not at all, and what it records of git and of images."""

from __future__ import annotations

import contextlib
import json
import signal
import ssl
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import PATH
from sessions import Analysis, wait_until

from preserve.digest import Digest
from preserve.oci import CONFIG, LAYER, MANIFEST, Layout

DATA = bytes(range(256)) * 20_000  # five megabytes: several reads
OTHER = b"other bytes\n"
WORKFLOW = """\
format: 1
title: One input
images:
  tiny: oci:tiny
  spare: oci:spare
inputs:
  data/input.dat: {INPUT}
steps:
  - name: count
    stage: preparation
    image: tiny
    inputs: [data/input.dat]
    outputs: [count/bytes.txt]
    run: wc -c < ${{ inputs[0] }} > ${{ outputs[0] }}
  - name: again
    stage: preparation
    image: spare
    inputs: [data/input.dat]
    outputs: [again/bytes.txt]
    run: wc -c < ${{ inputs[0] }} > ${{ outputs[0] }}
"""


@dataclass
class Server:
    """What the server has, by path, and how often each was asked for."""

    address: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    files: dict[str, bytes] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)


def answering(server: Server) -> type[BaseHTTPRequestHandler]:
    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.asked[self.path] += 1
            self.close_connection = True
            ways: dict[str, Callable[[], None]] = {
                "/cut": self.cut,
                "/cut-chunks": self.cut_chunks,
                "/stalled": self.stalled,
                "/busy": lambda: self.send_error(503),
                "/moved": self.moved,
                "/odd": self.odd,
            }
            ways.get(self.path, self.whole)()

        def whole(self) -> None:
            if self.path in server.files:
                self.begin(200, {"Content-Length": str(len(server.files[self.path]))})
                self.wfile.write(server.files[self.path])
            else:
                self.send_error(404)

        def cut(self) -> None:
            self.begin(200, {"Content-Length": str(len(DATA))})
            self.wfile.write(DATA[: len(DATA) // 2])

        def cut_chunks(self) -> None:
            self.begin(200, {"Transfer-Encoding": "chunked"})
            self.wfile.write(b"10000\r\n" + DATA[:0x10000] + b"\r\n10000\r\n" + DATA[:0x8000])

        def stalled(self) -> None:
            self.begin(200, {"Content-Length": str(len(DATA))})
            self.wfile.write(DATA[: len(DATA) // 2])
            while not server.over.wait(0.2):
                self.wfile.write(b"a drop")

        def moved(self) -> None:
            self.begin(302, {"Location": "/good", "Content-Length": "0"})

        def odd(self) -> None:
            self.begin(200, {"Content-Length": "many"})
            self.wfile.write(DATA)

        def begin(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep the tests' output clean."""

    return Answer


@contextlib.contextmanager
def serving(certificate: Path | None = None) -> Iterator[Server]:
    """A server on loopback, over TLS with a certificate."""
    server = Server(files={"/good": DATA, "/empty": b""})
    with ThreadingHTTPServer(("127.0.0.1", 0), answering(server)) as listening:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            listening.socket = context.wrap_socket(listening.socket, server_side=True)
        scheme = "http" if certificate is None else "https"
        server.address = f"{scheme}://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            listening.shutdown()
            thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


@pytest.fixture
def analysis(tmp_path: Path) -> Analysis:
    """An analysis folder without git, whose images can be locked but not run."""
    root = tmp_path / "analysis"
    root.mkdir()
    for name in ("tiny", "spare"):
        write_image(root / name, "1")
    return Analysis(root=root, engine="none", environment={"PATH": PATH, "HOME": str(tmp_path)})


def write_image(path: Path, version: str) -> None:
    """An OCI layout of one image with nothing in it; another version is another digest."""
    layout = Layout(path).create()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": {"version": version}},
        "rootfs": {"type": "layers", "diff_ids": [Digest.of(bytes(10240))]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": blob(layout, CONFIG, json.dumps(config).encode()),
        "layers": [blob(layout, LAYER, bytes(10240))],
    }
    entry = blob(layout, MANIFEST, json.dumps(manifest).encode())
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


def blob(layout: Layout, media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": str(layout.add_bytes(data).digest), "size": len(data)}


def declare(analysis: Analysis, *, url: str | None = None, digest: str | None = None) -> None:
    """Write preserve.yaml with one input."""
    parts = {"url": url and json.dumps(url), "sha256": digest}
    text = ", ".join(f"{key}: {value}" for key, value in parts.items() if value)
    (analysis.root / "preserve.yaml").write_text(WORKFLOW.replace("{INPUT}", f"{{{text}}}"))


def hexdigest(data: bytes) -> str:
    return sha256(data).hexdigest()


def locked(analysis: Analysis, *arguments: str) -> dict[str, object]:
    """The lock's JSON after ``preserve lock``, which must succeed."""
    done = analysis("lock", *arguments)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads((analysis.root / "preserve.lock").read_bytes())
    return found


def pinned(analysis: Analysis, *arguments: str) -> dict[str, object]:
    """The input's pin."""
    inputs = locked(analysis, *arguments)["inputs"]
    assert isinstance(inputs, dict)
    found: dict[str, object] = inputs["data/input.dat"]
    return found


def assert_nothing_left(analysis: Analysis) -> None:
    assert not (analysis.root / "preserve.lock").exists()
    assert not [path for path in (analysis.root / "data").rglob("*") if path.is_file()]


class TestFetching:
    @pytest.mark.parametrize("digest", [None, hexdigest(DATA)], ids=["first seen", "declared"])
    def test_once_and_never_again(self, analysis: Analysis, server: Server, digest: str | None) -> None:
        url = f"{server.address}/good"
        declare(analysis, url=url, digest=digest)
        assert pinned(analysis) == {"sha256": f"sha256:{hexdigest(DATA)}", "size": len(DATA), "url": url}
        assert [path.name for path in (analysis.root / "data").iterdir()] == ["input.dat"]
        assert (analysis.root / "data" / "input.dat").read_bytes() == DATA

        before = (analysis.root / "preserve.lock").stat()
        again = analysis("lock")
        assert (again.returncode, "nothing new" in again.stderr) == (0, True), again.stderr
        assert (analysis.root / "preserve.lock").stat() == before
        assert server.asked == {"/good": 1}

    def test_it_follows_a_redirection_and_takes_an_empty_file(self, analysis: Analysis, server: Server) -> None:
        declare(analysis, url=f"{server.address}/moved")
        assert pinned(analysis)["size"] == len(DATA)
        (analysis.root / "data" / "input.dat").unlink()
        declare(analysis, url=f"{server.address}/empty")
        assert pinned(analysis)["size"] == 0

    def test_a_length_that_is_no_number_is_none(self, analysis: Analysis, server: Server) -> None:
        declare(analysis, url=f"{server.address}/odd")
        assert pinned(analysis)["sha256"] == f"sha256:{hexdigest(DATA)}"

    @pytest.mark.parametrize("form", ["file:near.dat", "file://{root}/near.dat", "file:{root}/near.dat"])
    def test_from_this_machine(self, analysis: Analysis, form: str, tmp_path: Path) -> None:
        """A relative path starts at the analysis' folder, wherever the command was typed."""
        (analysis.root / "near.dat").write_bytes(DATA)
        declare(analysis, url=form.format(root=analysis.root))
        done = replace(analysis, root=tmp_path)("lock", "-C", "analysis")
        assert done.returncode == 0, done.stderr
        assert (analysis.root / "data" / "input.dat").read_bytes() == DATA

    def test_over_tls_only_from_a_server_that_is_known(self, analysis: Analysis, certificate: Path) -> None:
        with serving(certificate) as server:
            declare(analysis, url=f"{server.address}/good")
            refused = analysis("lock")
            assert refused.returncode == 3, refused.stderr
            assert "certificate verify failed" in refused.stderr
            assert_nothing_left(analysis)

            knowing = {**analysis.environment, "SSL_CERT_FILE": str(certificate)}
            assert pinned(replace(analysis, environment=knowing))["sha256"] == f"sha256:{hexdigest(DATA)}"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and the certificate that it signed for 127.0.0.1, in one file."""
    both = tmp_path / "certificate.pem"
    options = ("-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=a test", "-keyout", both, "-out", both)
    name = ("-addext", "subjectAltName=IP:127.0.0.1")
    subprocess.run(["openssl", "req", "-x509", *options, *name], check=True, capture_output=True, env={"PATH": PATH})
    return both


class TestFetchingFails:
    @pytest.mark.parametrize(
        ("name", "code", "message"),
        [
            ("missing", 2, "there is nothing at"),
            ("busy", 3, "HTTP 503"),
            ("cut", 3, f"the connection was cut after {len(DATA) // 2} of {len(DATA)} bytes"),
            ("cut-chunks", 3, "IncompleteRead"),
        ],
    )
    def test_the_input_and_the_address_are_named(
        self, analysis: Analysis, server: Server, name: str, code: int, message: str
    ) -> None:
        declare(analysis, url=f"{server.address}/{name}")
        failed = analysis("lock")
        assert failed.returncode == code, failed.stderr
        assert message in failed.stderr
        assert "preserve.yaml:7:3: input data/input.dat" in failed.stderr
        assert f"{server.address}/{name}" in failed.stderr
        assert_nothing_left(analysis)

    def test_nobody_listens(self, analysis: Analysis) -> None:
        with serving() as server:
            gone = server.address
        declare(analysis, url=f"{gone}/good")
        failed = analysis("lock")
        assert failed.returncode == 3, failed.stderr
        assert "Connection refused" in failed.stderr
        assert_nothing_left(analysis)

    @pytest.mark.parametrize(
        ("url", "message"),
        [("file:nowhere.dat", "there is nothing at"), ("root://host.invalid//data", "fetch it yourself")],
    )
    def test_no_such_address(self, analysis: Analysis, url: str, message: str) -> None:
        declare(analysis, url=url)
        failed = analysis("lock")
        assert failed.returncode == 2, failed.stderr
        assert message in failed.stderr
        assert_nothing_left(analysis)

    def test_other_bytes_than_declared(self, analysis: Analysis, server: Server) -> None:
        server.files["/good"] = OTHER
        declare(analysis, url=f"{server.address}/good", digest=hexdigest(DATA))
        failed = analysis("lock")
        assert failed.returncode == 5, failed.stderr
        assert f"declared sha256:{hexdigest(DATA)}, found sha256:{hexdigest(OTHER)}" in failed.stderr
        assert_nothing_left(analysis)

    def test_ctrl_c_does_not_wait_for_the_transfer(self, analysis: Analysis, server: Server) -> None:
        declare(analysis, url=f"{server.address}/stalled")
        with subprocess.Popen(
            analysis.argv("lock"), stderr=subprocess.PIPE, text=True, cwd=analysis.root, env=dict(analysis.environment)
        ) as process:
            half_there = analysis.root / "data" / ".fetching-input.dat"
            try:
                assert wait_until(lambda: half_there.exists() and half_there.stat().st_size > 0, 20)
                process.send_signal(signal.SIGINT)
                _, stderr = process.communicate(timeout=10)
            finally:
                process.kill()
        assert process.returncode == 130, stderr
        assert "Traceback" not in stderr
        assert_nothing_left(analysis)


class TestWhatWasPinnedHolds:
    """Once pinned, an address may not give other bytes unnoticed: another physicist would get another analysis."""

    def test_the_server_changed(self, analysis: Analysis, server: Server) -> None:
        declare(analysis, url=f"{server.address}/good")
        locked(analysis)
        before = (analysis.root / "preserve.lock").read_bytes()
        (analysis.root / "data" / "input.dat").unlink()
        server.files["/good"] = OTHER
        failed = analysis("lock")
        assert failed.returncode == 5, failed.stderr
        assert f"preserve.lock pins sha256:{hexdigest(DATA)}" in failed.stderr
        assert (analysis.root / "preserve.lock").read_bytes() == before
        assert not (analysis.root / "data" / "input.dat").exists()
        assert analysis("lock", "--update", "tiny").returncode == 5  # one image, and nothing else
        assert pinned(analysis, "--update")["sha256"] == f"sha256:{hexdigest(OTHER)}"

    def test_the_file_was_edited(self, analysis: Analysis, server: Server) -> None:
        declare(analysis, url=f"{server.address}/good")
        locked(analysis)
        (analysis.root / "data" / "input.dat").write_bytes(OTHER)
        assert analysis("lock").returncode == 5
        assert (analysis.root / "data" / "input.dat").read_bytes() == OTHER
        assert server.asked == {"/good": 1}

    def test_a_file_without_address_may_change(self, analysis: Analysis) -> None:
        declare(analysis)
        (analysis.root / "data").mkdir()
        for data in (DATA, OTHER):
            (analysis.root / "data" / "input.dat").write_bytes(data)
            assert pinned(analysis) == {"sha256": f"sha256:{hexdigest(data)}", "size": len(data)}

    def test_the_file_of_an_earlier_address_is_not_taken_for_the_new_ones(
        self, analysis: Analysis, server: Server
    ) -> None:
        declare(analysis, url=f"{server.address}/good")
        locked(analysis)
        server.files["/new"] = OTHER
        declare(analysis, url=f"{server.address}/new")
        refused = analysis("lock")
        assert refused.returncode == 2, refused.stderr
        assert f"still the one from {server.address}/good" in refused.stderr
        (analysis.root / "data" / "input.dat").unlink()
        assert pinned(analysis)["sha256"] == f"sha256:{hexdigest(OTHER)}"

    def test_a_mirror_of_declared_bytes_needs_no_second_transfer(self, analysis: Analysis, server: Server) -> None:
        for name in ("good", "mirror"):
            declare(analysis, url=f"{server.address}/{name}", digest=hexdigest(DATA))
            assert pinned(analysis)["url"] == f"{server.address}/{name}"
        assert server.asked == {"/good": 1}


@pytest.fixture
def in_git(analysis: Analysis) -> Analysis:
    """The analysis with local data, committed."""
    declare(analysis)
    (analysis.root / "data").mkdir()
    (analysis.root / "data" / "input.dat").write_bytes(DATA)
    (analysis.root / "note.txt").write_text("first\n")
    git(analysis, "init", "-q")
    git(analysis, "add", "preserve.yaml", "note.txt", "tiny", "spare")
    commit(analysis, 1_000_000_000)
    return analysis


def git(analysis: Analysis, *command: str, **environment: str) -> str:
    identity = ("-c", "user.name=Tester", "-c", "user.email=tester@example.org")
    done = subprocess.run(
        ["git", *identity, *command],
        check=True,
        cwd=analysis.root,
        env={"PATH": PATH, **environment},
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def commit(analysis: Analysis, seconds: int) -> None:
    """Commit what is tracked and changed, at a time in seconds since 1970."""
    moment = f"@{seconds} +0000"
    git(analysis, "commit", "-q", "-a", "-m", "Change", GIT_COMMITTER_DATE=moment, GIT_AUTHOR_DATE=moment)


class TestGit:
    def test_the_commit_and_its_time(self, in_git: Analysis) -> None:
        """Data and products make nothing dirty."""
        found = locked(in_git)
        expected = {"commit": "HEAD", "tree": "HEAD^{tree}"}
        names = {key: git(in_git, "rev-parse", name) for key, name in expected.items()}
        assert found["source"] == {**names, "clean": True}
        assert found["epoch"] == 1_000_000_000

    def test_committing_the_lock_changes_nothing(self, in_git: Analysis) -> None:
        locked(in_git)
        before = (in_git.root / "preserve.lock").read_bytes()
        git(in_git, "add", "preserve.lock")
        commit(in_git, 1_000_000_100)
        assert locked(in_git)["source"] == json.loads(before)["source"]
        assert (in_git.root / "preserve.lock").read_bytes() == before

    def test_changes_that_are_not_committed_are_told(self, in_git: Analysis) -> None:
        (in_git.root / "note.txt").write_text("second\n")
        done = in_git("lock")
        assert "changes that are not committed" in done.stderr
        source = locked(in_git)["source"]
        assert isinstance(source, dict)
        assert source["clean"] is False

    def test_a_new_commit_is_recorded_and_the_clock_stands_until_updated(self, in_git: Analysis) -> None:
        locked(in_git)
        (in_git.root / "note.txt").write_text("second\n")
        commit(in_git, 1_100_000_000)
        found = locked(in_git)
        assert isinstance(found["source"], dict)
        assert found["source"]["commit"] == git(in_git, "rev-parse", "HEAD")
        assert found["epoch"] == 1_000_000_000
        assert locked(in_git, "--update")["epoch"] == 1_100_000_000

    def test_without_git_it_says_so(self, analysis: Analysis, server: Server) -> None:
        declare(analysis, url=f"{server.address}/good")
        done = analysis("lock")
        assert "the version of the code is not recorded" in done.stderr
        assert locked(analysis)["source"] is None


class TestImages:
    def test_a_pinned_image_stays_until_it_is_updated(self, in_git: Analysis) -> None:
        first = images(in_git)
        for name in ("tiny", "spare"):
            write_image(in_git.root / name, "2")
        assert images(in_git) == first

        one = images(in_git, "--update", "tiny")
        assert (one["tiny"] != first["tiny"], one["spare"] == first["spare"]) == (True, True)
        both = images(in_git, "--update")
        assert both["tiny"] == one["tiny"]
        assert both["spare"] != first["spare"]

    def test_updating_an_image_that_is_not_declared_is_refused(self, in_git: Analysis) -> None:
        refused = in_git("lock", "--update", "tinny")
        assert refused.returncode == 2, refused.stderr
        assert "no image 'tinny'" in refused.stderr
        assert not (in_git.root / "preserve.lock").exists()


def images(analysis: Analysis, *arguments: str) -> dict[str, object]:
    """Manifest digests by name."""
    found = locked(analysis, *arguments)["images"]
    assert isinstance(found, dict)
    return {name: pin["manifest_digest"] for name, pin in found.items()}
