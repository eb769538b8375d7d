"""`folkmoot`, and `python -m folkmoot`."""

import sys


def main() -> None:
    """The command line. Its modules take a second to load, in which Ctrl-C may come as well."""
    try:
        from folkmoot.cli import main as run  # noqa: PLC0415 -- what is waited for
    except KeyboardInterrupt:
        sys.stderr.write("folkmoot: cancelled\n")
        sys.exit(130)
    run()


if __name__ == "__main__":  # a cluster's worker imports it under another name
    main()
