"""Finds the dead letters of one error, whatever ids, addresses and numbers it names.

The expression is that of notifier.vocabulary.error_forms when this was written, and kept here: a revision does
not change; a change there needs an index of its own.
"""

from alembic import op

from notifier.migrations.online import create_index

revision = "0029"
down_revision = "0028"


_REPLACED = (
    (r"[A-Za-z][A-Za-z0-9+.-]*://[^\s<>]+", "{url}"),
    (r'[^\s<>",;:()]+@[^\s<>",;:()]+', "{address}"),
    ("[A-Za-z_-]*[0-9][A-Za-z0-9_-]{11,}(:[0-9:.]+Z?)?", "{id}"),
    (
        "[+][0-9][0-9 ().-]{6,}|[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]+)?|[0-9]+([.][0-9]+){3}|[0-9]{4,}"
        "|[0-9]+[.][0-9]+ m?s",
        "{n}",
    ),
)


def _form() -> str:
    expression = "left(error, 400)"
    for pattern, instead in _REPLACED:
        expression = f"regexp_replace({expression}, '{pattern}', '{instead}', 'g')"
    return f"left({expression}, 200)"


def upgrade() -> None:
    """Make the index."""
    create_index("dead_letters_error_form_idx", "dead_letters", f"(({_form()})) WHERE requeued_at IS NULL")


def downgrade() -> None:
    """Remove it."""
    op.execute("DROP INDEX dead_letters_error_form_idx")
