"""``python -m r3cnn`` is ``r3cnn``."""

from r3cnn.cli import main

if __name__ == "__main__":
    main()
