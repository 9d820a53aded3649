"""All that a database holds, and what of a person is still in it."""

from sqlalchemy import Engine, text


def dump(engine: Engine) -> dict[str, str]:
    """All rows of all tables as text, also of those that the models do not know; bytes are read as Latin-1."""
    with engine.connect() as connection:
        names = connection.scalars(
            text("SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace")
        )
        rows = {name: connection.execute(text(f'SELECT * FROM "{name}"')).all() for name in list(names)}
    return {
        name: repr([[bytes(each).decode("latin-1") if isinstance(each, memoryview) else each for each in row]
                    for row in found]) for name, found in rows.items()
    }  # fmt: skip


def still_in(engine: Engine, *needles: str) -> list[str]:
    return [name for name, found in dump(engine).items() if any(each.lower() in found.lower() for each in needles)]
