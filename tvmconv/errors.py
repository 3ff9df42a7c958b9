"""One exception class per mistake a user can make; factored out so that no module needs another for them.

A wrong argument is a plain ``ValueError`` or ``TypeError``, as in TensorFlow.
Everything else derives from ``TvmconvError``, and its message ends with what to do next.
"""

# What to do where the compiler is missing; messages of several rooms end with it.
INSTALL_COMPILER = "pip install 'tvmconv[compiler]'"


class TvmconvError(Exception):
    """Base of every error of this package that is not a wrong argument."""


class BundleError(TvmconvError):
    """A bundle cannot be used: truncated, altered, of a newer format, or not a bundle at all."""


class IncompatibleMachineError(BundleError):
    """A bundle is sound, but none of its variants runs on this machine's architecture and CPU features."""


class UntrustedBundleError(BundleError):
    """A bundle is not signed, or by none of the keys that are trusted."""


class SigningKeyError(TvmconvError):
    """A key file cannot be read or written, or holds no Ed25519 key of the kind that is needed."""


class HardwarePackError(TvmconvError):
    """A hardware pack that was asked for cannot be loaded or contradicts itself."""


class UnknownNameError(TvmconvError, ValueError):
    """A machine, workload, schedule or knob of that name does not exist; the message lists near names."""


class BatchError(TvmconvError):
    """A batch of candidates, or what was measured of it, is torn, altered, or belongs to something else."""


class RecordError(TvmconvError):
    """A tuning record is torn, unknown to its schedule, or no longer applies."""


class MissingToolError(TvmconvError):
    """A compiler, linker or Python package that this step needs is not installed, or has a wrong version."""


class BuildError(TvmconvError):
    """A kernel could not be compiled, or what was compiled computes wrong values."""


class DeviceError(TvmconvError):
    """A GPU did not do what it was asked: too little memory, a launch that failed, a capture in the way."""


class TuningError(TvmconvError):
    """Tuning could not go on: nothing could be measured, or the log cannot be written."""


class ModelError(TvmconvError):
    """A model cannot be read, or has something that is not supported; the message names its place."""
