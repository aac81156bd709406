"""Signed tasks: the serializer `auth`, which signs with a private key what another one has written, and reads nothing else.

The form is Celery's, so both read each other: signer, signature, content type, encoding and body, each in base64 where it is
bytes, joined and in base64 again; the signature is RSA with PSS, over the body. What it proves is who wrote the arguments (or
the result); the name of the task, its id and its options are not signed, as in Celery.

Needs the package cryptography, which is imported when security is set up.
"""

from __future__ import annotations

import base64
import glob
import os
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from litetq import clock, serialization
from litetq.exceptions import EncodeError, ImproperlyConfigured, SecurityError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
    from cryptography.hazmat.primitives.hashes import HashAlgorithm
    from cryptography.x509 import Certificate as X509

NAME: Final = "auth"
DIGEST: Final = "sha256"
_SEPARATOR: Final = b"\x00\x01"  # stands in none of the parts before the body


class Certificate:
    """Whose signatures are believed, and until when.

    Raises SecurityError for what is no certificate with an RSA key.
    """

    def __init__(self, pem: str | bytes, place: str = "the certificate") -> None:
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
        from cryptography.x509 import load_pem_x509_certificate

        try:
            self._certificate: X509 = load_pem_x509_certificate(_bytes(pem))
        except ValueError as error:
            raise SecurityError(f"Invalid certificate: {place} is none in PEM form ({error})") from error
        key = self._certificate.public_key()
        if not isinstance(key, RSAPublicKey):
            raise SecurityError(f"Invalid certificate: the key of {place} is no RSA key, and others are not supported")
        self._key: RSAPublicKey = key

    @property
    def id(self) -> str:
        """Issuer and serial number, by which a signature names its signer."""
        issuer = " ".join(str(part.value) for part in self._certificate.issuer)
        return f"{issuer} {self._certificate.serial_number}"

    def has_expired(self) -> bool:
        """Return whether its time is over."""
        return datetime.fromtimestamp(clock.now(), timezone.utc) >= self._certificate.not_valid_after_utc

    def verify(self, body: bytes, signature: bytes, digest: HashAlgorithm) -> None:
        """Raise SecurityError unless its owner has signed this body, and its time is not over."""
        from cryptography.exceptions import InvalidSignature

        if self.has_expired():
            raise SecurityError(f"Expired certificate: {self.id!r}")
        try:
            self._key.verify(signature, body, _padding(digest), digest)
        except InvalidSignature as error:
            raise SecurityError(f"Bad signature: the content was not signed by {self.id!r}") from error


class PrivateKey:
    """What signs. Raises SecurityError for what is no RSA key, or needs another password."""

    def __init__(self, pem: str | bytes, password: bytes | str | None = None, place: str = "the key") -> None:
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(_bytes(pem), None if password is None else _bytes(password))
        except (ValueError, TypeError) as error:
            raise SecurityError(f"Invalid private key: {place} cannot be read: {error}") from error
        if not isinstance(key, RSAPrivateKey):
            raise SecurityError(f"Invalid private key: {place} is no RSA key, and others are not supported")
        self._key: RSAPrivateKey = key

    def sign(self, body: bytes, digest: HashAlgorithm) -> bytes:
        """Return the signature of this body."""
        return self._key.sign(body, _padding(digest), digest)


class Signatures:
    """Writes what is signed with one key, and reads what one of the trusted certificates stands for.

    Args:
        serializer: what the body is written with; a body in another form is not read, whoever signed it.
    """

    def __init__(
        self,
        key: PrivateKey,
        certificate: Certificate,
        trusted: dict[str, Certificate],
        digest: str = DIGEST,
        serializer: str = "json",
    ) -> None:
        self._key = key
        self._certificate = certificate
        self._trusted = trusted
        self._digest = _digest(digest)
        self._serializer = serializer
        self._content_type = serialization.content_type_of(serializer) or serialization.JSON

    def encode(self, value: Any) -> str:
        """Return a value as signed text."""
        try:
            _, body = serialization.encode(value, self._serializer)
        except EncodeError as error:
            raise error.__cause__ or error from None  # whoever asked says where in the value it is
        signature = self._key.sign(body, self._digest)
        parts = [
            base64.b64encode(self._certificate.id.encode()),
            base64.b64encode(signature),
            self._content_type.encode(),
            b"utf-8",
            body,
        ]
        return base64.b64encode(_SEPARATOR.join(parts)).decode()

    def decode(self, data: bytes) -> Any:
        """Return the value of signed text; SecurityError unless a trusted certificate stands for it."""
        try:
            signer, signature, content_type, _, body = base64.b64decode(data, validate=True).split(
                _SEPARATOR, maxsplit=4
            )
            id = base64.b64decode(signer).decode()
            signature = base64.b64decode(signature)
        except ValueError as error:
            raise SecurityError("Unable to deserialize: the content is not signed") from error
        certificate = self._trusted.get(id)
        if certificate is None:
            raise SecurityError(f"Unknown certificate: {id!r} is none of those in security_cert_store")
        certificate.verify(body, signature, self._digest)
        if content_type.decode() != self._content_type:
            raise SecurityError(
                f"Unable to deserialize: the signed content is of type {content_type.decode()!r}, and {self._content_type} is meant"
            )
        return serialization.decode(body, self._content_type, frozenset({self._content_type}))


def certificates_in(place: str) -> dict[str, Certificate]:
    """Return the certificates of a directory, or of the files that a pattern means, by id.

    Raises SecurityError when one of them is none, or has expired, or has the id of another; ImproperlyConfigured where there
    are none.
    """
    found: dict[str, Certificate] = {}
    for path in sorted(glob.glob(os.path.join(place, "*") if os.path.isdir(place) else place)):
        certificate = Certificate(_read(path, "security_cert_store"), path)
        if certificate.has_expired():
            raise SecurityError(f"Expired certificate: {certificate.id!r} ({path})")
        if certificate.id in found:
            raise SecurityError(f"Duplicate certificate: {certificate.id!r} ({path})")
        found[certificate.id] = certificate
    if not found:
        raise ImproperlyConfigured(
            f"security_cert_store={place!r}: there is no file; name a directory of certificates, or a pattern like '/etc/certs/*.pem'"
        )
    return found


def set_up(
    conf: Any,
    key: str | None = None,
    key_password: bytes | str | None = None,
    cert: str | None = None,
    store: str | None = None,
    digest: str | None = None,
    serializer: str = "json",
) -> None:
    """Register the serializer `auth` in this process, with these files or those that the settings name.

    Raises ImproperlyConfigured when something is missing or unsigned tasks would be accepted, SecurityError for a bad file.
    """
    if conf.task_serializer != NAME or list(conf.accept_content) != [NAME]:
        raise ImproperlyConfigured(
            "setup_security: set task_serializer='auth' and accept_content=['auth'] before; there is no point in signing tasks "
            f"where unsigned ones are accepted (found {conf.task_serializer!r} and {list(conf.accept_content)!r})"
        )
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise ImproperlyConfigured(
            "The serializer auth needs the package cryptography, which is not installed; run: pip install 'litetq[auth]'"
        ) from error
    places = {
        "security_key": key or conf.security_key,
        "security_certificate": cert or conf.security_certificate,
        "security_cert_store": store or conf.security_cert_store,
    }
    missing = [name for name, place in places.items() if not place]
    if missing:
        raise ImproperlyConfigured(f"setup_security: {', '.join(missing)} must be set, or given as an argument")
    key_place, certificate_place, store_place = map(os.fspath, places.values())
    signatures = Signatures(
        PrivateKey(_read(key_place, "security_key"), key_password or conf.security_key_password, key_place),
        Certificate(_read(certificate_place, "security_certificate"), certificate_place),
        certificates_in(store_place),
        digest or conf.security_digest,
        serializer,
    )
    register(signatures.encode, signatures.decode)


def register(encode: Callable[[Any], str], decode: Callable[[bytes], Any]) -> None:
    """Make this the serializer `auth`; raw data is then no longer read, because its content type is the same, as in Celery."""
    serialization.register_signed(NAME, encode, decode)


def _read(path: str, setting: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ImproperlyConfigured(f"{setting}={path!r} cannot be read: {error.strerror or error}") from error


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _padding(digest: HashAlgorithm) -> Any:
    from cryptography.hazmat.primitives.asymmetric import padding

    return padding.PSS(mgf=padding.MGF1(digest), salt_length=padding.PSS.MAX_LENGTH)


def _digest(name: str) -> HashAlgorithm:
    from cryptography.hazmat.primitives import hashes

    kind = getattr(hashes, name.upper(), None)
    if not (isinstance(kind, type) and issubclass(kind, hashes.HashAlgorithm)):
        raise ImproperlyConfigured(f"security_digest={name!r}: there is no such digest; use one like 'sha256'")
    made: HashAlgorithm = kind()
    return made
