"""Turns what a server or the network answers into our errors: one line with the place and the remedy."""

import re
import socket
import ssl
import textwrap

import redis.exceptions as control

from state_store.errors import (
    BadUrl,
    PartitionMoved,
    SlotMoved,
    StateStoreError,
    StoreFull,
    StoreUnavailable,
    WrongPassword,
    WrongServer,
)

_NOT_READY = {
    "LOADING": "is still loading its data",
    "MASTERDOWN": "has lost its primary",
    "READONLY": "is a read-only replica: point the URL at the primary",
    "BUSY": "is busy with a script",
    "NOREPLICAS": "has too few replicas attached to take writes",
    "CLUSTERDOWN": "belongs to a cluster that is down",
    "UNBLOCKED": "sent a waiting read away, as a primary does that becomes a replica",
}
_DENIED = {
    "NOAUTH": "wants a password: write it into the URL as redis://:password@host or redis://user:password@host",
    "WRONGPASS": "refused the user or the password in the URL",
    "NOPERM": "does not permit this user what the fleet needs: see its ACL",
}
_FULL = {
    "OOM": "has reached its maxmemory: nothing was written; raise maxmemory or lower the retention",
    "MISCONF": "cannot write to its disk: nothing was written; free disk space there",
}
_MOVED, _FOREIGN = ("MOVED", "ASK", "TRYAGAIN"), ("WRONGTYPE",)
_SAID_MAX = 160
_CODE = re.compile(rf"(?:^|[-:] ?)({'|'.join([*_NOT_READY, *_DENIED, *_FULL, *_MOVED, *_FOREIGN])})\b")


def refusal(text: str, where: str) -> StateStoreError:
    """Names the error behind an error reply."""
    found = _CODE.search(text)  # A script's or a transaction's error holds the reason in the middle.
    code, rest = (found[1], text[found.end() :].strip()) if found else ("", text)
    if code in _NOT_READY:
        return StoreUnavailable(f"{where} {_NOT_READY[code]}.")
    if code == "NOAUTH":  # What it says further is for those who write clients.
        return WrongPassword(f"{where} {_DENIED[code]}.")
    if code in _DENIED:
        said = textwrap.shorten(rest, _SAID_MAX, placeholder=" ...")
        return WrongPassword(f"{where} {_DENIED[code]} (it says: {said}).")
    if code in _FULL:
        return StoreFull(f"{where} {_FULL[code]}.")
    if code in _MOVED:
        return _moved(code, rest, where)
    if code in _FOREIGN:
        return WrongServer(f"{where} holds another kind of key under one of ours: take another namespace.")
    if "SELECT is not allowed in cluster mode" in text:
        return BadUrl(f"{where} is a node of a Redis Cluster, which has only database 0: end the URL without a number.")
    if "DB index" in text:
        return BadUrl(f"{where} has no database of that number: end the URL in a lower one or raise `databases` there.")
    if "exhausted the last possible ID" in text:
        return PartitionMoved(f"{where} takes no ticks in this partition any more: `partitions` in `meta` has changed.")
    if "AUTH" in text:
        return WrongPassword(f"{where} takes no password, or not this one ({text}): correct the URL.")
    if "unknown command" in text:
        return WrongServer(f"{where} is too old ({text}): the fleet needs Redis 6.2 or Valkey 7.2.")
    return WrongServer(f"{where} answered '{text}'.")


def _moved(code: str, rest: str, where: str) -> SlotMoved:
    """Reads `MOVED 3999 host:port`; the host may be left out, and then it is that of the node that says so."""
    target = re.match(r"(\d+) (.*):(\d+)", rest)
    if code == "TRYAGAIN" or target is None:
        return SlotMoved(f"{where} is moving the keys to another node.")
    slot, host, port = target.groups()
    text = f"{where} {'is moving' if code == 'ASK' else 'has moved'} the keys to {host}:{port}."
    return SlotMoved(text, int(slot), (host, int(port)), asking=code == "ASK")


def unreachable(error: BaseException, where: str) -> StateStoreError:
    """Names the error behind a connection that could not be made or was lost."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return WrongServer(
            f"The certificate of {where} was refused ({error.verify_message}): "
            "name its authority with ?ssl_ca_certs=FILE."
        )
    if isinstance(error, ssl.SSLError):
        return WrongServer(f"{where} does not speak TLS ({error.reason}): use redis:// if it is meant to be plain.")
    if isinstance(error, TimeoutError):
        plain = ", or it does not speak TLS: use redis://" if where.startswith("rediss:") else ""
        return StoreUnavailable(f"{where} does not answer: check host, port and firewall{plain}.")
    if isinstance(error, socket.gaierror):
        return StoreUnavailable(f"{where} cannot be reached, its host name is unknown: check the URL.")
    if isinstance(error, FileNotFoundError):
        return StoreUnavailable(f"{where} cannot be reached, there is no such socket: start Redis or check the URL.")
    if isinstance(error, ConnectionRefusedError) or "Connect call failed" in str(error):  # One for each address.
        return StoreUnavailable(f"{where} refuses connections: start Redis there or check the URL.")
    if isinstance(error, PermissionError):
        return StoreUnavailable(f"{where} may not be opened by this user: check the socket's permissions.")
    return StoreUnavailable(f"The connection to {where} was lost ({error or type(error).__name__}).")


def control_error(error: control.RedisError, where: str) -> StateStoreError:
    """Names the error behind an exception of the control client."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, control.RedisError):  # Errors of entering come wrapped as errors of connecting.
        return control_error(cause, where)
    if isinstance(error, control.NoPermissionError):
        return refusal(f"NOPERM {error}", where)
    if isinstance(error, control.AuthenticationError):
        return refusal(f"{'NOAUTH' if 'HELLO' in str(error) else 'WRONGPASS'} {error}", where)
    if isinstance(error, control.OutOfMemoryError):
        return refusal(f"OOM {error}", where)
    if isinstance(error, control.ReadOnlyError):
        return refusal("READONLY", where)
    if isinstance(error, control.BusyLoadingError):
        return refusal("LOADING", where)
    if isinstance(error, control.MasterDownError):
        return refusal("MASTERDOWN", where)
    if isinstance(error, control.AskError):
        return refusal(f"{'MOVED' if isinstance(error, control.MovedError) else 'ASK'} {error}", where)
    if isinstance(error, control.TryAgainError):
        return refusal("TRYAGAIN", where)
    if isinstance(error, control.ClusterDownError):
        return refusal("CLUSTERDOWN", where)
    if isinstance(error, control.InvalidResponse):
        return WrongServer(f"{where} does not speak the Redis protocol: check host and port in the URL.")
    if isinstance(error, control.ConnectionError | control.TimeoutError):
        return unreachable(cause or error, where)
    return refusal(str(error), where)
