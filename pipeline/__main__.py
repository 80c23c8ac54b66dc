"""`python -m pipeline` is `unroll`."""

import sys

from pipeline.cli import main

sys.exit(main())
