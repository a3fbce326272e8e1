"""`python -m studykit COMMAND`, which launchers of several processes start: the command line."""

from studykit.cli import main

if __name__ == "__main__":
    main()
