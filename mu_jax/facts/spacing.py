"""Which scripts put spaces between words, and where an answer begins with one.

    The capital of France is    -> " Paris"     a space that the prompt leaves out
    프랑스의 수도는                  -> " 파리"       Korean has spaces
    法国的首都是                     -> "巴黎"        Chinese has none

Scripts are told by the names of their characters in the Unicode database.
"""

import unicodedata

_UNSPACED = (
    "CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "BOPOMOFO", "YI", "THAI", "LAO",
    "KHMER", "MYANMAR", "TIBETAN", "TAI", "NEW TAI", "AHOM", "JAVANESE", "BALINESE",
)  # fmt: skip


def unspaced(character: str) -> bool:
    """Whether it is a letter or a sign of a script without spaces between words.

    Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan and their like.
    """
    name = unicodedata.name(character, "").removeprefix("HALFWIDTH ")
    return any(name.startswith((f"{script} ", f"{script}-")) for script in _UNSPACED)


def gap(prompt: str, subject: str) -> str:
    """What stands between a prompt and its answer: a space, or nothing.

    The prompt's own words decide: it has `{}` in the subject's place, and the subject
    counts only where there are no others. Nothing stands behind words of a script that
    puts no spaces between them, behind their wide punctuation, and behind a bracket or
    a quote that opens.
    """
    whole = prompt.replace("{}", subject)
    if _opens(whole) or _wide(whole[-1:]):
        return ""
    letters = [c for text in (subject, prompt) for c in text if c.isalpha()]
    return "" if letters and unspaced(letters[-1]) else " "


def _opens(text: str) -> bool:
    """Whether it ends with an opening bracket, or a quote that no word precedes."""
    *_, before, last = f"  {text}"
    kind = unicodedata.category(last)
    quote = kind in ("Pi", "Pf") or last in "\"'"
    free = before.isspace() or unicodedata.category(before) == "Ps"
    return kind == "Ps" or (quote and free)


def _wide(character: str) -> bool:
    """Whether it is punctuation as wide as a Chinese letter; it needs no space."""
    if not character or not unicodedata.category(character).startswith("P"):
        return False
    return unicodedata.east_asian_width(character) in "WF"
