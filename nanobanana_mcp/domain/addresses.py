"""Checks an address that the key is to be sent to."""

import ipaddress
import re
from urllib.parse import urlsplit

SUCH_AS = "must be an address such as https://gateway.example/ (https://gateway.example:8443/ with a port)"


def is_this_machine(host: str) -> bool:
    """Tells whether a host can only be this machine itself, so that nothing that is sent there leaves it."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def checked(url: str) -> str:
    """A base URL without blanks around it. Raises ValueError, which does not repeat it, when a key must not go there."""
    url = url.strip()
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:  # its words would repeat the port or the host
        raise ValueError(f"{SUCH_AS}, the port from 1 to 65535") from None
    if not (url.isascii() and url.isprintable() and " " not in url) or not re.fullmatch(r"[\w.-]+|[0-9a-f:.]+", host):
        raise ValueError(f"{SUCH_AS}; a name in other letters is written as xn--...")
    if port == 0:
        raise ValueError(f"{SUCH_AS}, the port from 1 to 65535")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError(f"{SUCH_AS}, without a user name, ? and #")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_this_machine(host)):
        raise ValueError("must begin with https:// (http:// is for this machine only), or the key would travel bare")
    return url
