"""A running system, as its clients on the command line ask it."""

from contextlib import suppress
from ipaddress import ip_address

import httpx
import msgspec

from roadcast.errors import PROBLEM_MEDIA_TYPE, SourceError

TIMEOUT_S = 10.0


class Part(msgspec.Struct):
    """What a part says of itself."""

    name: str
    status: str
    since: str
    detail: str
    remedy: str


class Health(msgspec.Struct):
    """What `/health/detailed` says."""

    status: str
    parts: list[Part]


def client_of(address: str, timeout_s: float = TIMEOUT_S) -> httpx.Client:
    """A client of the system at `address`; one on this machine is not asked through a proxy.

    Raises:
        SourceError: that is no address, or the proxy that the environment names cannot be used.
    """
    try:
        url = httpx.URL(address.rstrip("/"))
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in {"http", "https"} or not url.host:
        raise SourceError(f"--url {address}: expected an address such as http://localhost:8000")
    try:
        return httpx.Client(base_url=url, timeout=timeout_s, trust_env=not _is_loopback(url.host))
    except (ImportError, ValueError) as error:  # SOCKS, or a scheme that nobody knows
        raise SourceError(
            f"The proxy that the environment names cannot be used: {error}",
            remedy=f"Set NO_PROXY={url.host}, or unset ALL_PROXY.",
        ) from error


def ask_health(address: str) -> Health:
    """How every part of the system at `address` is.

    Raises:
        SourceError: it does not answer, or is not Roadcast.
    """
    try:
        with client_of(address) as client:
            answer = client.get("/health/detailed")
    except httpx.HTTPError as error:
        raise SourceError(f"{address} does not answer.", remedy="Start it: python3 src/api/deploy.py") from error
    try:
        return msgspec.json.decode(answer.content, type=Health)
    except msgspec.DecodeError as error:
        raise _instead(address, answer) from error


class _Problem(msgspec.Struct):
    detail: str


def _instead(address: str, answer: httpx.Response) -> SourceError:
    """What answered in place of the parts: a problem that says why, or another program."""
    if answer.headers.get("content-type") == PROBLEM_MEDIA_TYPE:
        with suppress(msgspec.DecodeError):
            return SourceError(f"{address}: {msgspec.json.decode(answer.content, type=_Problem).detail}")
    return SourceError(f"{address} answers, but is not Roadcast.", remedy="Set API_PORT or --url.")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
