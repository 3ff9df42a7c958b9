"""What every test relies on."""

import signal

# A shell starts jobs in the background with Ctrl-C ignored, and all that they start inherits it: tests that
# interrupt a command would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
