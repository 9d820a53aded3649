"""The embedded stack: Postgres, Valkey and every process of Notifier, started and watched by one command."""

import sys
from pathlib import Path
from typing import Final

#: The source of the Python client: a package with a wheel of its own, which the commands and the tests import from
#: here. A checkout and the image have it beside them, so that neither installs it.
CLIENT_SOURCE: Final = Path(__file__).resolve().parents[1] / "clients" / "python" / "src"

if str(CLIENT_SOURCE) not in sys.path:
    sys.path.insert(0, str(CLIENT_SOURCE))
