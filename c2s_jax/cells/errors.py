"""The error of this room."""


class CellDataError(ValueError):
    """Cells, genes or expression values that cannot be used as they are; the message says what to do."""


def shown(items: object, limit: int = 5) -> str:
    """List at most `limit` items in a message, with how many were left out."""
    listed = [str(item) for item in items]  # type: ignore[attr-defined]
    text = ", ".join(listed[:limit])
    return text if len(listed) <= limit else f"{text}, … ({len(listed)} in all)"
