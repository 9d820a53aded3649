"""Gather the site's pages in a folder, or write the tables of docs/settings.md anew.

python -m deploy.site FOLDER        what mkdocs reads; the folder is written anew
python -m deploy.site --settings    docs/settings.md
"""

import sys
from pathlib import Path

from deploy.site.navigation import MisplacedError
from deploy.site.pages import ROOT, gather
from deploy.site.settings_reference import page_with_tables


def main(arguments: list[str]) -> None:
    """Do what the one argument says."""
    match arguments:
        case ["--settings"]:
            page = ROOT / "docs" / "settings.md"
            page.write_text(page_with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
        case [folder] if not folder.startswith("-"):
            try:
                gather(Path(folder))
            except MisplacedError as error:
                raise SystemExit(f"Error: {error}") from None
        case _:
            raise SystemExit((__doc__ or "").strip())


main(sys.argv[1:])
