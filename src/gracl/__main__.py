"""`python -m gracl` is `gracl`."""

from gracl.cli import main

if __name__ == "__main__":
    main()
