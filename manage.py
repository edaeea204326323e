#!/usr/bin/env python
"""The command line of zelo: `python manage.py help` lists the commands."""

import sys


def main() -> None:
    """Run the command; after Ctrl-C, which no command reports from its own start-up, end with one line and code 130."""
    try:
        from zelo_site.environment import prepare_environment

        prepare_environment()
        from django.core.management import execute_from_command_line

        execute_from_command_line(sys.argv)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
