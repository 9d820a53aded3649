"""Packages of handlers, installed for a test."""

from pathlib import Path


def install(folder: Path, name: str, version: str, entries: dict[str, str], modules: dict[str, str]) -> None:
    """A package as pip leaves it: its modules, and the metadata in which entry points are found."""
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source, encoding="utf-8")
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{pattern} = {value}" for pattern, value in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(["[notifier.handlers]", *lines, ""]))
