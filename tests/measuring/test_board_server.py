"""What a board does about clients and trackers that do not speak as they should."""

import socket
import struct
import threading
import time

import pytest

from tvmconv.measuring.places import board_server

MAGIC = struct.pack("<i", 0x2F271)
NONSENSE = {
    "garbage": b"\xff\xfe{",
    "null": b"null",
    "deep": b"[" * 100_000,
    "number": b"1e999",
    "not text": b"\x80",
}


class Tracker:
    """Answers as TVM's, but the third message, what is pending, with ``reply``."""

    def __init__(self, reply: bytes) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.reply, self.boards = reply, 0
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def address(self):
        return self.listening.getsockname()

    def _serve(self):
        while True:
            board, _ = self.listening.accept()
            self.boards += 1
            try:
                board.recv(4)
                board.sendall(MAGIC)
                for number in range(10):
                    board.recv(4096)
                    answer = b"0" if number < 2 else self.reply
                    board.sendall(struct.pack("<i", len(answer)) + answer)
            except OSError:
                pass


@pytest.mark.parametrize("kind", NONSENSE)
def test_a_board_tries_again_after_a_tracker_answered_nonsense(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(board_server, "_PING_SECONDS", 0.05)
    monkeypatch.setattr(board_server, "_RETRY_SECONDS", 0.05)
    tracker, said = Tracker(NONSENSE[kind]), []

    class Enough(Exception):  # noqa: N818 - no error
        pass

    def say(line):
        said.append(line)
        if sum("cannot be reached" in line for line in said) == 2:
            raise Enough

    with pytest.raises(Enough):
        board_server.serve(
            board_server.Server(("127.0.0.1", 0), "k", tracker.address, tmp_path), say
        )
    assert tracker.boards == 2
    assert said[2] == "the tracker cannot be reached (it answers nonsense); trying again"


def test_a_client_that_drips_bytes_is_given_up(monkeypatch):
    monkeypatch.setattr(board_server, "_MESSAGE_SECONDS", 0.5)
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def drip():
        while not stop.wait(0.2):
            try:
                theirs.sendall(b"\x01")
            except OSError:
                return

    thread = threading.Thread(target=drip)
    thread.start()
    begin = time.monotonic()
    try:
        with pytest.raises(TimeoutError):
            board_server._receive(ours, 1000, board_server._deadline())
    finally:
        stop.set()
        thread.join()
    assert time.monotonic() - begin < 5
