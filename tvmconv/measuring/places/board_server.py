"""A board's side of measuring over a network: TVM's RPC, served by the runtime library alone.

TVM's own server is part of apache-tvm; its loop, though, is in ``libtvm_runtime.so``. What is here speaks
the few messages that come before it (tvm/rpc/server.py and tracker.py of apache-tvm 0.27) and gives the
loop the functions that measure. Whoever may connect may run any code: TVM's RPC knows no authentication.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvmconv import writing
from tvmconv.bundle import manifest
from tvmconv.errors import TuningError
from tvmconv.files import parse_json
from tvmconv.hardware import host
from tvmconv.measuring.places.board_service import BoardService
from tvmconv.measuring.process.libraries import open_runtime
from tvmconv.measuring.process.worker import die_with_parent

_MAGIC, _TRACKER_MAGIC = 0xFF271, 0x2F271
_MISMATCH = _MAGIC + 2
_PUT, _UPDATE_INFO, _GET_PENDING = 3, 5, 7
_PING_SECONDS, _RETRY_SECONDS = 2.0, 2.0
_UNUSED_PINGS = 3  # after which a key that somebody took, but does not use, is replaced
_MESSAGE_SECONDS = 10.0  # for all of it, however slowly its bytes drip
_LARGEST = 1 << 20  # bytes of a message before the loop

Address = tuple[str, int]


@dataclass(frozen=True)
class Server:
    """A board's server: where it listens, under which key it is known, and to which tracker."""

    address: Address
    key: str
    tracker: Address | None
    runtime: Path


def serve(server: Server, say: Callable[[str], None]) -> None:
    """Serve one client after the other, each in a process of its own, until Ctrl-C.

    ``say`` is told what happens. Raises TuningError when the address cannot be listened on.
    """
    family = socket.getaddrinfo(*server.address, type=socket.SOCK_STREAM)[0][0]
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(server.address)
        except OSError as error:
            raise TuningError(
                f"cannot listen on {server.address[0]}:{server.address[1]}: {error.strerror}. Give "
                "another --port."
            ) from error
        listening.listen(1)
        port = listening.getsockname()[1]
        say(f"serving on {server.address[0]}:{port}")
        _Serving(server, listening, port, say).forever()


class _Serving:
    def __init__(
        self, server: Server, listening: socket.socket, port: int, say: Callable[[str], None]
    ) -> None:
        self._server, self._listening, self._port, self._say = server, listening, port, say
        self._tracker: socket.socket | None = None

    def forever(self) -> None:
        while True:
            try:
                connection, client = self._client()
            except OSError as error:
                self._say(f"the tracker cannot be reached ({error}); trying again")
                if self._tracker is not None:
                    self._tracker.close()
                    self._tracker = None
                time.sleep(_RETRY_SECONDS)
                continue
            self._say(f"{client[0]} is connected")
            with writing.scratch("tvmconv-board-") as folder:
                with connection:
                    parent = os.getpid()
                    child = os.fork()
                    if child == 0:
                        self._listening.close()
                        _child(parent, connection, folder, self._server.runtime)
                os.waitpid(child, 0)
            self._say(f"{client[0]} is gone")

    def _client(self) -> tuple[socket.socket, Any]:
        """Wait for a client that knows the key; OSError when the tracker is lost meanwhile."""
        key = self._offer()
        unused = 0
        while True:
            if self._tracker is not None:
                ready = select.select([self._listening, self._tracker], [], [], _PING_SECONDS)[0]
                if self._listening not in ready:
                    pending = self._ask([_GET_PENDING])
                    if not isinstance(pending, list):
                        raise OSError("it answers nonsense")
                    unused = 0 if key in pending else unused + 1
                    if unused > _UNUSED_PINGS:
                        key, unused = self._offer(), 0
                    continue
            connection, address = self._listening.accept()
            with contextlib.suppress(OSError, ValueError):
                if self._greeted(connection, key):
                    connection.settimeout(None)
                    _keep_alive(connection)
                    return connection, address
            connection.close()

    def _offer(self) -> str:
        """Tell the tracker that this board is free; returns what a client must say."""
        if self._server.tracker is None:
            return self._server.key
        if self._tracker is None:
            self._tracker = socket.create_connection(self._server.tracker, 10.0)
            self._tracker.sendall(struct.pack("<i", _TRACKER_MAGIC))
            if _receive_number(self._tracker, _deadline()) != _TRACKER_MAGIC:
                raise OSError("it is no RPC tracker")
            info = {"key": f"server:{self._server.key}", "addr": (None, self._port)}
            self._ask([_UPDATE_INFO, info])
            self._say("the tracker knows this board")
        key = f"{self._server.key}:{random.random()}"  # noqa: S311 - as TVM's: no secret
        self._ask([_PUT, self._server.key, (self._port, key), None])
        return key

    def _ask(self, message: Any) -> Any:
        assert self._tracker is not None  # noqa: S101 - for the type checker
        text = json.dumps(message).encode()
        self._tracker.settimeout(_MESSAGE_SECONDS)
        self._tracker.sendall(struct.pack("<i", len(text)) + text)
        deadline = _deadline()
        size = _receive_number(self._tracker, deadline)
        content = _receive(self._tracker, size, deadline)
        try:
            return parse_json(content)
        except ValueError as error:
            raise OSError("it answers nonsense") from error

    def _greeted(self, connection: socket.socket, key: str) -> bool:
        """Read who the client is; only one that knows the key is served."""
        deadline = _deadline()
        if _receive_number(connection, deadline) != _MAGIC:
            return False
        size = _receive_number(connection, deadline)
        words = _receive(connection, size, deadline).decode().split()
        if words[:1] != [f"client:{key}"]:
            connection.sendall(struct.pack("<i", _MISMATCH))
            return False
        mine = f"server:{self._server.key}".encode()
        connection.sendall(struct.pack("<ii", _MAGIC, len(mine)) + mine)
        return True


def _deadline() -> float:
    return time.monotonic() + _MESSAGE_SECONDS


def _receive_number(connection: socket.socket, deadline: float) -> int:
    (number,) = struct.unpack("<i", _receive(connection, 4, deadline))
    return int(number)


def _receive(connection: socket.socket, size: int, deadline: float) -> bytes:
    """Read so many bytes; OSError, as a TimeoutError, when they are not there by then."""
    if not 0 <= size <= _LARGEST:
        raise OSError("it speaks something else")
    content = b""
    while len(content) < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        connection.settimeout(left)
        part = connection.recv(size - len(content))
        if not part:
            raise OSError("connection closed")
        content += part
    return content


def _keep_alive(connection: socket.socket) -> None:
    """Notice within a minute that a client is gone without a word: the board is for the next one."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _child(parent: int, connection: socket.socket, folder: Path, runtime: Path) -> None:
    """Serve one client, and end."""
    code = 1
    try:
        import tvm_ffi

        die_with_parent(parent)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
        open_runtime(runtime, 1)
        session = BoardService(folder, runtime)
        tvm_ffi.register_global_func("tvmconv.put", session.put)
        tvm_ffi.register_global_func("tvmconv.ask", session.ask)
        try:
            tvm_ffi.get_global_func("rpc.ServerLoop")(connection.fileno())
        finally:
            session.close()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def find_runtime(place: Path | None) -> Path:
    """Return ``libtvm_runtime.so`` from a bundle for this architecture, a file, or the installed TVM."""
    if place is None:
        from tvmconv.building import toolchain

        return toolchain.runtime_library()
    file = place / manifest.runtime_name(host.architecture()) if place.is_dir() else place
    if not file.is_file():
        raise TuningError(
            f"{file} does not exist: give --runtime a bundle that was built for this board, or a file "
            "libtvm_runtime.so"
        )
    return file
