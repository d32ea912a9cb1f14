"""Whose certificates this device believes: the system's list, where a factory installs its own authority.

Invariant: everything that speaks TLS here asks this file, so that `doctor` checks what the agent does.
"""

import ssl


def trusted(ca_file: str | None = None) -> ssl.SSLContext:
    """What is to be believed of a server: the system's list (or ``SSL_CERT_FILE``, ``SSL_CERT_DIR``), or only ``ca_file``.

    OSError when that file is no certificate in PEM format.
    """
    return ssl.create_default_context(cafile=ca_file)
