"""The command line: ``tvmconv VERB ...``; every verb is a module in `tvmconv.commands`.

Only the verb that is used is imported, so that ``tvmconv --help`` answers at once, and ``verify``
and ``inspect`` work where there is no compiler.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import ModuleType

from tvmconv.errors import TvmconvError
from tvmconv.version import __version__

# Each is a module of that name with add_arguments(parser) and run(args) -> exit code.
VERBS = (
    ("machines", "list the machines that kernels can be made for, and say what this one is"),
    ("doctor", "check what works here, and say what to install"),
    ("tune", "measure schedules on this machine or a board, and record the best"),
    ("measure", "measure what tune --export wrote, on the machine it is for"),
    ("board", "serve this board to tune --rpc-tracker"),
    ("logs", "merge, prune and promote tuning records"),
    ("build", "compile kernels into a bundle"),
    ("compile", "compile a whole model into a bundle"),
    ("bench", "time kernels or a whole model, beside other libraries"),
    ("verify", "check every kernel of a bundle, or a compiled model's values"),
    ("publish", "put a bundle in the place of another, at once"),
    ("key", "make keys for signing bundles"),
    ("inspect", "show what a bundle holds and where it runs"),
    ("compare", "time a convolution against its depthwise-separable form"),
)
_INTERRUPTED = 128 + 2  # what shells report for a program that Ctrl-C ended
_PIPE_CLOSED = 128 + 13


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 on success; 1 when something is missing, damaged or wrong; 2 for a wrong argument or name; 130
    after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="surrogateescape")  # paths that are not UTF-8, as they are
    try:
        code = _run(arguments)
        sys.stdout.flush()  # here, and not where Python ends, a closed pipe can be dealt with
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # the reader, such as head, has seen enough
        _discard_output()
        return _PIPE_CLOSED
    return code


def _run(arguments: list[str]) -> int:
    parsed = _parser(arguments).parse_args(arguments)
    if parsed.verb is None:
        _parser([]).print_help()
        return 2
    try:
        with _interrupts_kept():
            return int(_module(parsed.verb).run(parsed))
    except BrokenPipeError:
        raise
    except (TvmconvError, ValueError, TypeError, OSError) as error:
        if parsed.debug:
            raise
        print(f"error: {_message(error)}", file=sys.stderr)
        # UnknownNameError is a ValueError, as every wrong argument is.
        return 2 if isinstance(error, ValueError | TypeError) else 1


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser for ``arguments``, in which only the verb that they name is complete."""
    parser = argparse.ArgumentParser(
        prog="tvmconv",
        description="TensorFlow-style convolutions, compiled and tuned for exactly your hardware.",
        epilog="`tvmconv VERB --help` explains a verb. Start with: tvmconv doctor",
    )
    parser.add_argument("--version", action="version", version=f"tvmconv {__version__}")
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    # No option before the verb takes a value, so the first word is the verb.
    wanted = next((word for word in arguments if not word.startswith("-")), None)
    for name, summary in VERBS:
        verb = verbs.add_parser(name, help=summary)
        if name == wanted:
            module = _module(name)
            verb.description = module.__doc__
            verb.formatter_class = argparse.RawDescriptionHelpFormatter
            # Without a default, so that --debug before the verb is not forgotten.
            verb.add_argument(
                "--debug",
                action="store_true",
                default=argparse.SUPPRESS,
                help="show where an error comes from",
            )
            module.add_arguments(verb)
    return parser


def _module(verb: str) -> ModuleType:
    return importlib.import_module(f"tvmconv.commands.{verb}")


@contextlib.contextmanager
def _interrupts_kept() -> Iterator[None]:
    """Raise KeyboardInterrupt after Ctrl-C also where TVM makes an error without a word of it."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # whoever calls this has other plans for Ctrl-C
        return
    seen: list[int] = []

    def interrupt(number: int, _frame: object) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except Exception as error:
        if seen:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _discard_output() -> None:
    """Send what is still in the buffer nowhere, or Python would complain when it ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
