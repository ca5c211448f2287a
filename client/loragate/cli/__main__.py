"""`python -m loragate.cli`."""

import sys

from loragate.cli import main

sys.exit(main())
