"""Amounts as people read them: sizes, limits, how full something is.

The one rule: K, M, G and T are powers of 1024, as in the settings.
"""

from labstead_session.notices import percent

__all__ = ["human_size", "limit_words", "percent"]


def human_size(size: int | None) -> str:
    """Write bytes for people; nothing where there is no number."""
    if size is None:
        return ""
    power = min((max(size, 1).bit_length() - 1) // 10, 4)
    return f"{size / 2 ** (10 * power):.1f}".removesuffix(".0") + "BKMGT"[power]


def limit_words(size: int | None, files: int | None) -> str:
    """Write a limit for people, such as `20G, 500000 files`; 0 is none, as None is."""
    parts = [human_size(size)] if size else []
    parts += [f"{files} files"] if files else []
    return ", ".join(parts) or "no limit"
