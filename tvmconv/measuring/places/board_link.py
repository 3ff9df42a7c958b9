"""One board behind TVM's RPC: its connection in a process of its own, and what its tracker knows."""

from __future__ import annotations

import dataclasses
import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvmconv.errors import TuningError
from tvmconv.files import parse_json
from tvmconv.hardware import Machine
from tvmconv.measuring.process.candidate import Built
from tvmconv.measuring.process.device import Processor
from tvmconv.measuring.process.libraries import Libraries
from tvmconv.measuring.process.runner import Conditions

Address = tuple[str, int]
_WAIT_SECONDS = 20.0  # for an answer of the tracker
_FILES_KEPT = 64  # on a board


@dataclass(frozen=True)
class Lost:
    """A board that could not be asked: why, and whether it had the question already."""

    text: str
    asked: bool


class Link:
    """A process with a connection to one board, or looking for one."""

    def __init__(
        self,
        tracker: Address,
        key: str,
        machine: Machine,
        libraries: Libraries,
        conditions: Conditions,
    ) -> None:
        from tvm.rpc import client

        self._client = client
        self._tracker, self._key, self._machine = tracker, key, machine
        self._libraries, self._conditions = libraries.files(), conditions
        if machine.gpu is None:  # a board serves with a runtime, which will do for its CPU
            del self._libraries["runtime"]
        self._session: Any = None
        self._here: Processor | None = None
        self._there: dict[str, None] = {}  # names of files on the board, oldest first

    def ask(self, question: dict[str, Any], files: dict[str, Any]) -> dict[str, Any] | Lost:
        """Send the libraries that the board lacks, and ask it."""
        asked = False
        try:
            if self._session is None:
                self._connect()
            if question["verb"] == "here":
                return {"here": self._here}
            built = {name: self._send(kernel) for name, kernel in files.items()}
            asked = True
            return {**self._call({**question, **built}), "here": self._here}
        except TuningError:
            raise
        except Exception as error:  # whatever TVM makes of a connection that ends
            self._session = None
            return Lost(f"{type(error).__name__}: {str(error).strip().splitlines()[-1:]}", asked)

    def _connect(self) -> None:
        tracker = self._client.TrackerSession(self._tracker)
        tracker._sock.settimeout(_WAIT_SECONDS)  # request() would wait for ever
        if not tracker.summary()["queue_info"].get(self._key, {}).get("free"):
            time.sleep(1.0)
            raise OSError("no board is free")
        self._session = tracker.request(self._key, max_retry=1)
        tracker.close()
        self._there = {}
        self._put = self._session.get_function("tvmconv.put")
        self._ask = self._session.get_function("tvmconv.ask")
        for file in self._libraries.values():
            self._put(file.name, file.read_bytes())
        begin = self._call(
            {
                "verb": "begin",
                "machine": dataclasses.asdict(self._machine),
                "threads": self._conditions.threads,
                "cache": self._conditions.cache,
                **{name: file.name for name, file in self._libraries.items()},
            }
        )
        about = value_of(begin)
        self._here = Processor(about["cpu"], about.get("driver"))

    def _call(self, question: dict[str, Any]) -> dict[str, Any]:
        answer = parse_json(str(self._ask(json.dumps(question))))
        if "refused" in answer:
            value_of(answer)
        return dict(answer)

    def _send(self, kernel: Built | list[Built] | None) -> Any:
        if kernel is None:
            return None
        if isinstance(kernel, list):
            return [self._send(each) for each in kernel]
        for library in (kernel.library, kernel.pack_library):
            if library is not None:
                self._upload(Path(library))
        return dataclasses.asdict(kernel.placed(Path()))

    def _upload(self, file: Path) -> None:
        if file.name not in self._there:
            self._put(file.name, file.read_bytes())
        self._there.pop(file.name, None)
        self._there[file.name] = None
        while len(self._there) > _FILES_KEPT:
            oldest = next(iter(self._there))
            del self._there[oldest]
            self._put(oldest, b"")


def value_of(answer: dict[str, Any]) -> Any:
    """Return what a board answered; raises TuningError where nothing can be measured there."""
    if "value" not in answer:
        raise TuningError(f"a board cannot measure: {answer.get('refused', answer)}")
    return answer["value"]


def addresses(tracker: Address, key: str) -> list[Any]:
    """What the tracker knows under the key; TuningError where there is no tracker."""
    from tvm.rpc.client import TrackerSession

    try:
        socket.create_connection(tracker, 5.0).close()
        session = TrackerSession(tracker)
        known = session.summary()["server_info"]
        session.close()
    except (OSError, RuntimeError) as error:
        raise TuningError(
            f"no RPC tracker at {tracker[0]}:{tracker[1]} ({error}). Start one: "
            "python -m tvm.exec.rpc_tracker --host 127.0.0.1 --port 9190"
        ) from error
    return [each["addr"] for each in known if each.get("key") == f"server:{key}"]


def no_board(tracker: Address, key: str, waited: float) -> TuningError:
    """The error for a key under which the tracker knows nobody."""
    from tvm.rpc.client import TrackerSession

    session = TrackerSession(tracker)
    known = {
        str(each.get("key", "")).removeprefix("server:")
        for each in session.summary()["server_info"]
    }
    session.close()
    others = ", ".join(sorted(known - {""})) or "none"
    return TuningError(
        f"no board under the key {key} (waited {waited:.0f} s); the tracker at "
        f"{tracker[0]}:{tracker[1]} knows these keys: {others}. Start one on the board: "
        f"tvmconv board --tracker HOST:{tracker[1]} --key {key}. Trials made are kept."
    )
