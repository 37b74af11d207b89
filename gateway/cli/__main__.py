"""`python -m gateway.cli`: the same command, where the script `wasl` is not installed."""

from gateway.cli import main

if __name__ == "__main__":
    main()
