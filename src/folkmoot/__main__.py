"""`python -m folkmoot`."""

from folkmoot.cli import main

if __name__ == "__main__":  # a cluster's worker imports it under another name
    main()
