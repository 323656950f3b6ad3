"""`python -m managedd`."""

from __future__ import annotations

from managedd.cli import main

if __name__ == "__main__":
    main()
