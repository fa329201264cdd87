"""Run the command line: `python -m unionfuse`."""

from unionfuse.cli import main

if __name__ == "__main__":
    main()
