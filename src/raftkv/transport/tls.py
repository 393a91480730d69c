"""Mutual TLS between nodes.

Both sides must show a certificate signed by the cluster's own authority. Host names in certificates are not
compared: a node may be dialled by any of its addresses, the authority signs nothing but nodes, and the
handshake that follows names the member. Whoever holds any node's key is a node; keep the authority for
this cluster alone.
"""

from __future__ import annotations

import ssl

from raftkv.errors import SettingsError
from raftkv.transport.settings import TlsFiles


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """For accepted connections; raises `SettingsError` naming the file that cannot be used."""
    return _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), files)


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """For dialled connections; raises `SettingsError` naming the file that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    return _load(context, files)


def _load(context: ssl.SSLContext, files: TlsFiles) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(files.ca_file)
    except OSError as error:
        raise SettingsError("raft_tls_ca_file", f"{files.ca_file}: {error}") from error
    try:
        context.load_cert_chain(files.cert_file, files.key_file)
    except OSError as error:
        raise SettingsError("raft_tls_cert_file", f"{files.cert_file} with {files.key_file}: {error}") from error
    return context
