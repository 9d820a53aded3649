"""Error forms: what an error of a dead letter says, without the ids, addresses and numbers that it names.

Ten thousand timeouts have ten thousand request ids, and one form. Status codes (`http 503`, `smtp 550 5.1.1`) stay. An
index has the forms of the letters that stand, so this expression changes together with a migration.
"""

from typing import Final

#: The longest form, in characters.
LONGEST: Final = 200

_REPLACED: Final = (
    (r"[A-Za-z][A-Za-z0-9+.-]*://[^\s<>]+", "{url}"),
    (r'[^\s<>",;:()]+@[^\s<>",;:()]+', "{address}"),
    # UUIDs, tokens, times as RFC 3339 has them: no word has a digit and so many characters.
    ("[A-Za-z_-]*[0-9][A-Za-z0-9_-]{11,}(:[0-9:.]+Z?)?", "{id}"),
    # Phone numbers, other dates and times, IP addresses, large numbers, seconds.
    (
        "[+][0-9][0-9 ().-]{6,}|[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]+)?|[0-9]+([.][0-9]+){3}|[0-9]{4,}"
        "|[0-9]+[.][0-9]+ m?s",
        "{n}",
    ),
)


def _form() -> str:
    """Return the SQL of the form of a letter's error."""
    expression = "left(error, 400)"
    for pattern, instead in _REPLACED:
        expression = f"regexp_replace({expression}, '{pattern}', '{instead}', 'g')"
    return f"left({expression}, {LONGEST})"


#: SQL for the form of the column `error`. None of it is a parameter, or the index would not be found.
FORM_IN_SQL: Final = _form()
