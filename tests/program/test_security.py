"""Signed tasks: what a trusted certificate stands for runs, and nothing else."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from litetq import LiteTQ, chord, clock, security, serialization, states
from litetq.exceptions import EncodeError, ImproperlyConfigured, SecurityError, SerializerNotInstalled
from litetq.testing import drain
from tests.conftest import RunPython, missing

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives import serialization as keys
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
except ImportError:
    missing("cryptography is not installed: pip install cryptography")


class Files(NamedTuple):
    key: Path
    certificate: Path


def make_pair(folder: Path, name: str, *, days: int = 30, password: bytes | None = None, key: Any = None) -> Files:
    """Write a key and a certificate that it has signed itself, which expires after so many days."""
    key = key or rsa.generate_private_key(65537, 2048)
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=60))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    secret = keys.NoEncryption() if password is None else keys.BestAvailableEncryption(password)
    files = Files(folder / f"{name}.key", folder / "certs" / f"{name}.pem")
    files.certificate.parent.mkdir(exist_ok=True)
    files.key.write_bytes(key.private_bytes(keys.Encoding.PEM, keys.PrivateFormat.PKCS8, secret))
    files.certificate.write_bytes(certificate.public_bytes(keys.Encoding.PEM))
    return files


@pytest.fixture(autouse=True)
def _auth_is_forgotten() -> Iterator[None]:
    yield
    if serialization.is_known("auth") or "auth" in serialization._by_name:
        serialization.unregister("auth")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return make_pair(tmp_path, "own")


@pytest.fixture
def app(app: LiteTQ, files: Files) -> LiteTQ:
    app.conf.update(
        task_serializer="auth",
        result_serializer="auth",
        accept_content=["auth"],
        security_key=str(files.key),
        security_certificate=str(files.certificate),
        security_cert_store=str(files.certificate.parent / "*.pem"),
    )

    @app.task(name="add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="total")
    def total(values: list[int]) -> int:
        return sum(values)

    return app


@pytest.mark.row("16.setup_security")
def test_signed_tasks_run_and_their_results_are_signed(app: LiteTQ) -> None:
    app.setup_security()
    add, total = app.tasks["add"], app.tasks["total"]
    result = add.delay(1, 2)
    joined = chord([add.s(1, 1), add.s(2, 2)], total.s())()
    assert b"[[1,2]" not in (app.engine.read(result.id) or pytest.fail("gone")).body
    drain(app)
    assert result.get(timeout=0) == 3
    assert joined.get(timeout=0) == 6


def test_an_unsigned_task_fails_and_never_runs(app: LiteTQ) -> None:
    app.setup_security()
    result = app.tasks["add"].apply_async((1, 2), serializer="json")
    drain(app)
    assert result.state == states.FAILURE
    assert "untrusted content of type json" in str(app.engine.read(result.id))


def test_raw_data_is_not_taken_for_signed(app: LiteTQ) -> None:
    app.setup_security()
    with pytest.raises(SecurityError, match="not signed"):
        serialization.decode(b"raw", serialization.DATA, serialization.accept_set(["auth"]))


def test_what_a_stranger_has_signed_is_refused(app: LiteTQ, tmp_path: Path) -> None:
    app.setup_security()
    (tmp_path / "elsewhere").mkdir()
    stranger = make_pair(tmp_path / "elsewhere", "stranger")
    forged = security.Signatures(
        security.PrivateKey(stranger.key.read_bytes()), security.Certificate(stranger.certificate.read_bytes()), {}
    ).encode([[1, 2], {}])
    accept = serialization.accept_set(["auth"])
    with pytest.raises(SecurityError, match="Unknown certificate: 'stranger"):
        serialization.loads_args(forged.encode(), serialization.DATA, accept)


def test_a_body_that_was_changed_is_refused(app: LiteTQ) -> None:
    app.setup_security()
    content_type, data = serialization.dumps_args([1, 2], {}, "auth")
    changed = base64.b64encode(base64.b64decode(data).replace(b"[[1,2]", b"[[9,2]"))
    accept = serialization.accept_set(["auth"])
    assert serialization.loads_args(data, content_type, accept) == ([1, 2], {})
    with pytest.raises(SecurityError, match="Bad signature"):
        serialization.loads_args(changed, content_type, accept)


def test_another_format_within_the_signature_is_refused(app: LiteTQ) -> None:
    """The signature does not cover the name of the format: it must not choose pickle."""
    app.setup_security()
    _, data = serialization.dumps_args([1, 2], {}, "auth")
    changed = base64.b64encode(base64.b64decode(data).replace(b"application/json", b"application/x-python-serialize"))
    with pytest.raises(SecurityError, match="application/json is meant"):
        serialization.decode(changed, serialization.DATA, serialization.accept_set(["auth"]))


def test_an_expired_certificate_is_believed_no_longer(app: LiteTQ) -> None:
    app.setup_security()
    _, data = serialization.dumps_args([1, 2], {}, "auth")
    with clock.moved(by=31 * 86_400), pytest.raises(SecurityError, match="Expired certificate"):
        serialization.decode(data, serialization.DATA, serialization.accept_set(["auth"]))
    with clock.moved(by=31 * 86_400), pytest.raises(SecurityError, match=r"Expired certificate.*own\.pem"):
        app.setup_security()


def test_the_form_is_celerys(app: LiteTQ, files: Files) -> None:
    app.setup_security()
    signer, signature, *rest = base64.b64decode(serialization.encode({"a": 1}, "auth")[1]).split(b"\x00\x01")
    certificate = security.Certificate(files.certificate.read_bytes())
    assert base64.b64decode(signer).decode() == certificate.id
    assert certificate.id.startswith("own ")
    assert len(base64.b64decode(signature)) == 256
    assert rest == [b"application/json", b"utf-8", b'{"a":1}']


def test_what_cannot_be_encoded_is_named(app: LiteTQ) -> None:
    app.setup_security()
    with pytest.raises(EncodeError, match=r"^Cannot encode args\[1\] as auth: Object of type object is not JSON"):
        app.tasks["add"].delay(1, object())


def test_a_key_with_a_password_and_another_digest(app: LiteTQ, tmp_path: Path) -> None:
    locked = make_pair(tmp_path, "locked", password=b"secret")
    options = {"key": str(locked.key), "cert": str(locked.certificate), "store": str(locked.certificate.parent)}
    app.setup_security(**options, key_password=b"secret", digest="sha512")
    assert (
        serialization.decode(serialization.encode(1, "auth")[1], serialization.DATA, serialization.accept_set(["auth"]))
        == 1
    )
    with pytest.raises(SecurityError, match=r"Invalid private key: .*locked\.key"):
        app.setup_security(**options, key_password=b"wrong")
    with pytest.raises(ImproperlyConfigured, match="security_digest='md7'"):
        app.setup_security(**options, key_password=b"secret", digest="md7")


def test_what_is_missing_or_wrong_is_one_sentence(app: LiteTQ, tmp_path: Path, files: Files) -> None:
    with pytest.raises(ImproperlyConfigured, match="security_key='/nowhere.key' cannot be read: No such file"):
        app.setup_security(key="/nowhere.key")
    with pytest.raises(ImproperlyConfigured, match="there is no file; name a directory"):
        app.setup_security(store=str(tmp_path / "none" / "*"))
    with pytest.raises(SecurityError, match=r"Invalid certificate: .*own\.key is none in PEM form"):
        app.setup_security(cert=str(files.key))
    with pytest.raises(SecurityError, match=r"Invalid private key: .*own\.pem"):
        app.setup_security(key=str(files.certificate))
    other = make_pair(tmp_path, "elliptic", key=ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(SecurityError, match="no RSA key"):
        app.setup_security(key=str(other.key))
    app.conf.security_key = None
    with pytest.raises(ImproperlyConfigured, match="security_key must be set"):
        app.setup_security()
    app.conf.accept_content = ["auth", "json"]
    with pytest.raises(ImproperlyConfigured, match=r"no point in signing.*\['auth', 'json'\]"):
        app.setup_security()


def test_without_the_call_the_sentence_says_what_to_do(app: LiteTQ) -> None:
    with pytest.raises(SerializerNotInstalled, match=r"No encoder installed for auth; call app.setup_security\(\)"):
        app.tasks["add"].delay(1, 2)
    with pytest.raises(ImproperlyConfigured, match=r"setting accept_content: .*call app.setup_security\(\)"):
        app.check()


@pytest.mark.system
def test_children_of_a_pool_read_and_sign(files: Files, tmp_path: Path, run_python: RunPython) -> None:
    (tmp_path / "tasks.py").write_text(
        f"""
from litetq import LiteTQ

app = LiteTQ(
    "tasks", broker="jobs.sqlite", task_serializer="auth", result_serializer="auth", accept_content=["auth"],
    security_key={str(files.key)!r}, security_certificate={str(files.certificate)!r},
    security_cert_store={str(files.certificate.parent)!r},
)
app.setup_security()

@app.task
def add(x, y):
    return x + y

if __name__ == "__main__":
    with app.run_embedded(pool="processes", concurrency=1):
        print(add.delay(1, 2).get(timeout=30))
""",
        encoding="utf-8",
    )
    process = run_python(tmp_path / "tasks.py")
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output.strip()) == (0, "3"), errors
