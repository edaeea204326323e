"""Turns finished English sentences in a column into msgid and parameters; for migrations of all floors."""

import json
import re

AT_ONCE = 1000


def as_message(text, sentences):
    """JSON of a sentence: found again by its pattern; a text that is none is its own msgid."""
    for sentence in sentences:
        parts = re.split(r"%\((\w+)\)s", sentence)
        pattern = "".join(f"(?P<{part}>.+?)" if at % 2 else re.escape(part) for at, part in enumerate(parts))
        if found := re.fullmatch(pattern, text, re.DOTALL):
            return json.dumps({"msgid": sentence, "params": found.groupdict()}, ensure_ascii=False)
    return json.dumps({"msgid": text, "params": {}}, ensure_ascii=False)


def convert(schema_editor, table, column, sentences):
    """Rewrite one column, some rows a statement; rows that are converted already stay, so that it can be repeated."""
    with schema_editor.connection.cursor() as cursor:
        last = 0
        while True:
            cursor.execute(
                f"SELECT id, {column} FROM {table} WHERE id > %s AND {column} <> '' "
                f"AND {column} NOT LIKE '{{\"msgid\":%%' ORDER BY id LIMIT %s",
                [last, AT_ONCE],
            )
            rows = cursor.fetchall()
            if not rows:
                return
            cursor.executemany(
                f"UPDATE {table} SET {column} = %s WHERE id = %s", [(as_message(text, sentences), pk) for pk, text in rows]
            )
            last = rows[-1][0]
