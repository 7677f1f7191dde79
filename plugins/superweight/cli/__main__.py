"""`python -m superweight.cli`: the `superweight` command."""

import sys

from superweight.cli import main

sys.exit(main())
