"""Certificates with which the parts of a session's Dask clusters know each other.

The one rule: an authority signs one certificate and its key is thrown away. Whoever holds the key of that certificate
is of this session; nobody else is, and nobody can make a second one.
"""

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAYS = 3650
"""A session may run for as long as the machine does; the next one has certificates of its own."""
_CLOCKS_APART = datetime.timedelta(hours=1)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _usage(**allowed: bool) -> x509.KeyUsage:
    words = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign "
        "encipher_only decipher_only"
    )
    return x509.KeyUsage(**(dict.fromkeys(words.split(), False) | allowed))


def pem_bundle(user: str) -> str:
    """Make the certificates of a session, for LABSTEAD_TLS.

    :param user: whose session it is; stands in the names of the certificates, where nothing reads it but people
    :return: in PEM, one after the other: the authority's certificate, the session's, and the key to that
    """
    now = datetime.datetime.now(datetime.UTC)
    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = _name(f"labstead authority of {user}")
    key_id = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())

    def certificate(
        subject: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions: tuple[x509.ExtensionType, bool]
    ) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _CLOCKS_APART)
            .not_valid_after(now + datetime.timedelta(days=_DAYS))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), critical=False)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    # Python 3.13 verifies strictly: without these it refuses (ssl.VERIFY_X509_STRICT).
    of_authority = certificate(
        issuer,
        authority,
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (_usage(key_cert_sign=True), True),
    )
    of_session = certificate(
        _name(f"labstead session of {user}"),
        own,
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(digital_signature=True), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), False),
    )
    key = own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return (of_authority + of_session + key).decode("ascii")
