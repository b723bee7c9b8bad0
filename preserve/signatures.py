"""SSH signatures over an archive's tagmanifest-sha256.txt, made and checked by OpenSSH's ssh-keygen (8.2 or newer).

The form is OpenSSH's PROTOCOL.sshsig. The namespace is fixed, so that no signature made for another purpose counts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from preserve.documents.archive import SIGNATURES
from preserve.errors import DigestMismatch, MachineError, PreserveError, UserError

NAMESPACE = "preserve-archive"
SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin"
MAX_SIGNATURE = 64 << 10  # bytes; RSA with 16384 bits makes 6 KB
_BEGIN, _END = b"-----BEGIN SSH SIGNATURE-----\n", b"-----END SSH SIGNATURE-----\n"
_WIDTH = 70  # characters in a line, as ssh-keygen writes them


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a signature says of itself, nothing of it checked: the key (as OpenSSH encodes it) and the namespace."""

    key: bytes
    namespace: str

    @property
    def fingerprint(self) -> str:
        """The key's, as ssh-keygen -l shows it: ``SHA256:`` and 43 characters."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.key).digest()).decode().rstrip("=")

    @property
    def name(self) -> str:
        """Its place in an archive: 16 hexadecimal digits of the key's fingerprint."""
        return f"{SIGNATURES}{hashlib.sha256(self.key).hexdigest()[:16]}.sig"


def read_signature(data: bytes) -> Signature:
    """Read a signature file, which must be byte for byte as ssh-keygen writes it.

    Raises:
        DigestMismatch: it is not.
    """
    try:
        if len(data) > MAX_SIGNATURE or not data.startswith(_BEGIN) or not data.endswith(_END):
            raise ValueError("no SSH signature")
        raw = base64.b64decode(data[len(_BEGIN) : -len(_END)].replace(b"\n", b""), validate=True)
        if raw[:10] != b"SSHSIG\0\0\0\1" or data != _armoured(raw):
            raise ValueError("not in the form that ssh-keygen writes")
        key, namespace, _, _, _ = _strings(raw[10:])
        return Signature(key=key, namespace=namespace.decode())
    except (ValueError, binascii.Error) as error:
        raise DigestMismatch(f"not a readable SSH signature: {error}", hint="remove it, and sign again") from error


def sign(data: bytes, key: Path, *, agent: str | None = None, search_path: str = SEARCH_PATH) -> bytes:
    """Sign ``data`` with a private key, or with a public one (``.pub``) whose private half ssh-agent holds.

    ``agent`` is the agent's socket. ssh-keygen asks for a passphrase on the terminal, where there is one.

    Raises:
        UserError: there is no such key, it cannot be read, or its passphrase is wrong or nobody is there to give it.
        MachineError: ssh-keygen is missing or too old.
    """
    if not key.is_file():
        raise UserError(f"there is no key {key}", hint="make one: ssh-keygen -t ed25519 -f FILE")
    environment = {} if agent is None else {"SSH_AUTH_SOCK": agent}
    done = _keygen("sign", "-f", str(key.absolute()), data=data, search_path=search_path, **environment)
    if done.returncode != 0:
        raise _not_signed(key, done.stderr.decode(errors="replace"))
    return done.stdout


def check(
    data: bytes, signature: bytes, allowed_signers: Path | None = None, *, search_path: str = SEARCH_PATH
) -> str | None:
    """Give the principal that ``allowed_signers`` names for the key; ``None``: the key is not (or no longer) allowed.

    Without ``allowed_signers`` nobody is: only whether the signature is one of these data is checked.

    Raises:
        DigestMismatch: it is no signature of these data for archives.
        UserError: ``allowed_signers`` cannot be read, or a line of it.
        MachineError: ssh-keygen is missing or too old.
    """
    found = read_signature(signature)
    if found.namespace != NAMESPACE:
        raise DigestMismatch(
            f"the signature was made for another purpose: namespace {found.namespace!r}, expected {NAMESPACE!r}",
            hint="sign the archive with: preserve sign",
        )
    with tempfile.TemporaryDirectory(prefix="signature-") as folder:
        file = Path(folder) / "signature"
        file.write_bytes(signature)
        if _keygen("check-novalidate", "-s", str(file), data=data, search_path=search_path).returncode != 0:
            raise DigestMismatch(
                f"the signature of key {found.fingerprint} is not one of these bytes",
                hint="the archive was changed after it was signed, or the signature belongs to another",
            )
        if allowed_signers is None:
            return None
        return next(_principals(data, file, _readable(allowed_signers), search_path), None)


def _principals(data: bytes, signature: Path, allowed: Path, search_path: str) -> Iterator[str]:
    """Yield those whom the file names for this key, and for this namespace and time as well."""
    options = ("-f", str(allowed), "-s", str(signature))
    named = _keygen("find-principals", *options, data=b"", search_path=search_path)
    _refuse_faulty(allowed, named.stderr.decode(errors="replace"))
    for principal in named.stdout.decode(errors="replace").splitlines():
        done = _keygen("verify", "-I", principal, *options, data=data, search_path=search_path)
        if done.returncode == 0:
            yield principal


def _refuse_faulty(allowed: Path, messages: str) -> None:
    """Refuse a line that ssh-keygen does not understand; it also remarks on empty ones, and on keys out of time."""
    lines = allowed.read_bytes().splitlines()
    for number, fault in re.findall(rf"^{re.escape(str(allowed))}:(\d+): (.*)$", messages, re.MULTILINE):
        if lines[int(number) - 1].strip() and not fault.startswith(("key has expired", "key is not yet valid")):
            raise UserError(
                f"{allowed}:{number}: {fault}", hint='each line: PRINCIPAL namespaces="preserve-archive" KEYTYPE KEY'
            )


def _readable(path: Path) -> Path:
    try:
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"allowed signers {path}: {error.strerror}", hint="name a file: --allowed-signers F") from error
    return path.absolute()


def _keygen(
    action: str, *options: str, data: bytes, search_path: str, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    argv = ("ssh-keygen", "-Y", action, *(() if action == "find-principals" else ("-n", NAMESPACE)), *options)
    try:
        done = subprocess.run(
            argv,
            input=data,
            capture_output=True,
            check=False,
            env={"PATH": search_path, "LC_ALL": "C", "HOME": "/nonexistent", **environment},
        )
    except OSError as error:
        raise MachineError(
            f"ssh-keygen cannot be started: {error.strerror}", hint="apt install openssh-client"
        ) from error
    if b"unknown option -- Y" in done.stderr or b"Unsupported operation" in done.stderr:
        raise MachineError("this ssh-keygen knows no signatures", hint="OpenSSH 8.2 or newer is needed")
    return done


def _not_signed(key: Path, messages: str) -> PreserveError:
    if "passphrase" in messages:
        return UserError(
            f"key {key}: its passphrase is wrong, or there is no terminal to ask for it",
            hint=f"sign at a terminal; or: ssh-add {key}, and name the public key: --key {key}.pub",
        )
    if "too open" in messages:
        return UserError(f"key {key}: others may read it, so ssh-keygen refuses it", hint=f"chmod 600 {key}")
    if "agent" in messages or "No private key found" in messages:
        return UserError(f"key {key}: ssh-agent does not hold its private half", hint="ssh-add its private key")
    lines = [line for line in messages.splitlines() if line.strip() and not line.startswith("Signing data")]
    return UserError(
        f"key {key}: ssh-keygen cannot sign with it: {lines[-1] if lines else 'it says nothing'}",
        hint="name a private SSH key, or the public one of a key that ssh-agent holds",
    )


def _strings(data: bytes) -> list[bytes]:
    """Read the strings of RFC 4251 (length, bytes) that ``data`` consists of."""
    found = []
    while data:
        (length,) = struct.unpack(">I", data[:4].ljust(4, b"\xff"))
        if length > len(data) - 4:
            raise ValueError("it is cut short")
        found.append(data[4 : 4 + length])
        data = data[4 + length :]
    return found


def _armoured(raw: bytes) -> bytes:
    text = base64.b64encode(raw)
    lines = [text[start : start + _WIDTH] + b"\n" for start in range(0, len(text), _WIDTH)]
    return b"".join((_BEGIN, *lines, _END))
