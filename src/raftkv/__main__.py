"""`python -m raftkv` is the command `raftkv`."""

from raftkv.cli import main

if __name__ == "__main__":
    main()
