"""Paths of the project."""

from pathlib import Path
from typing import Final

#: The project's folder.
ROOT: Final = Path(__file__).resolve().parents[2]
