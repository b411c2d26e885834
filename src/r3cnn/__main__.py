"""``python -m r3cnn`` is ``r3cnn``, which takes no code from the current folder."""

import sys

if not sys.flags.safe_path:  # Python has put that folder first
    del sys.path[0]

from r3cnn.cli import main

if __name__ == "__main__":
    main()
