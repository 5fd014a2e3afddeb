"""`python -m roadcast` is the command `roadcast`."""

from roadcast.cli import main

if __name__ == "__main__":
    main()
