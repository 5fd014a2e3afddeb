"""`python -m roadcast` is the command `roadcast`."""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # a Ctrl-C while the rest is read ends without a trace

from roadcast.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
