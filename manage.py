#!/usr/bin/env python
"""The command line of zelo: `python manage.py help` lists the commands."""

import sys

from zelo_site.environment import prepare_environment

if __name__ == "__main__":
    prepare_environment()
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
