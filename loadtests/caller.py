"""A blocking connection to the server, for measuring processes that do nothing while they wait."""

import socket
from typing import Any

import hiredis

RECEIVE_BYTES = 1 << 20


class Caller:
    """Sends a request whole and waits for all of its answers; ends the process when the server is gone."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._reader = hiredis.Reader()
        self._reader.setmaxbuf(0)

    def ask(self, request: bytes, count: int) -> list[Any]:
        self._socket.sendall(request)
        replies: list[Any] = []
        while len(replies) < count:
            while (reply := self._reader.gets()) is not False:
                replies.append(reply)
            if len(replies) < count:
                self._receive()
        return replies

    def close(self) -> None:
        self._socket.close()

    def _receive(self) -> None:
        received = self._socket.recv(RECEIVE_BYTES)
        if not received:
            raise SystemExit("the server went away")
        self._reader.feed(received)
