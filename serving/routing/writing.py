"""The writing of a sample of text: script, language, share of code. Pure."""

from __future__ import annotations

import re
from collections import Counter
from typing import get_args

from serving.config.routing import Script

# Scripts by the high byte of a UTF-16 unit: first byte, last byte, mark. Byte 0 is ASCII and Western Europe's
# letters, 20 to 2D are signs, D8 to DF emoji and rare characters.
_MARKS = dict(zip("lcgahitkuo", get_args(Script), strict=True))
_BLOCKS = """
01 02 l  03 03 g  04 04 c  05 05 h  06 08 a  09 0D i  0E 0E t  0F 1D o  1E 1E l  1F 1F g
2E 9F k  A0 AB o  AC D7 u  D8 DF o  F9 FA k  FB FE a  FF FF k
"""
_MARK_OF_BYTE = bytearray(b"-" * 256)
for _first, _last, _mark in re.findall(r"(\w\w) (\w\w) (\w)", _BLOCKS):
    for _byte in range(int(_first, 16), int(_last, 16) + 1):
        _MARK_OF_BYTE[_byte] = ord(_mark)
_TOKENS_PER_SIGN = 0.25
_TOKENS_PER_LETTER = {"latin": 0.25, "cjk": 1.0, "hangul": 1.0}
_TOKENS_PER_OTHER_LETTER = 0.5

_NOT_LETTERS = bytes(byte for byte in range(256) if not chr(byte).isalpha())
_NOT_CODE = bytes(byte for byte in range(256) if byte not in b"{}()[]<>;=_&\\+$")
# The share of such signs in prose and in source code; a text between the two is code in part.
_PROSE_DENSITY, _CODE_DENSITY = 0.02, 0.06
# Characters of prose that are added to every text: three brackets in a short question prove nothing.
_PRIOR_CHARACTERS = 100

_LANGUAGE_OF_SCRIPT = {"greek": "el", "hebrew": "he", "thai": "th", "hangul": "ko"}
_KANA = re.compile("[\u3041-\u30ff]")
_KANA_SHARE = 0.1
_VOTE_CHARACTERS = 1024
_STOP_WORDS = {
    "en": "the and of to is that for with you are this what it how not",
    "de": "der die das und ist nicht mit ein eine für auf ich sie wie den von",
    "fr": "le la les des et est une que pour dans pas qui sur vous du un",
    "es": "el la los las que y en es por con una para del se como un",
    "it": "il di che è per una non sono con della gli un come nel",
    "nl": "de het een en van is niet dat op te zijn voor met ik wat",
    "pl": "w na nie się jest że do z jak co to dla czy",
    "pt": "o os que e do da em uma para não com um como se ao",
}
_VOTES: dict[str, list[str]] = {}
for _code, _words in _STOP_WORDS.items():
    for _word in _words.split():
        _VOTES.setdefault(_word, []).append(_code)


def script_of(text: str) -> tuple[str, float]:
    """The script that most tokens are in, and the tokens per character of the whole."""
    if not text:
        return "none", _TOKENS_PER_SIGN
    # The high bytes of UTF-16 name the script: counting bytes takes microseconds, a loop milliseconds.
    marks = text.encode("utf-16-le", "surrogatepass")[1::2].translate(_MARK_OF_BYTE)
    tokens = {
        script: marks.count(mark.encode())
        * _TOKENS_PER_LETTER.get(script, _TOKENS_PER_OTHER_LETTER)
        for mark, script in _MARKS.items()
    }
    total = sum(tokens.values()) + marks.count(b"-") * _TOKENS_PER_SIGN
    letters = len(_western(text).translate(None, _NOT_LETTERS))
    tokens["latin"] += letters * _TOKENS_PER_LETTER["latin"]
    script = max(tokens, key=lambda name: tokens[name])
    return script if tokens[script] else "none", total / len(text)


def language_of(script: str, head: str, tail: str) -> str:
    """A guess by the script, or for Latin by a vote of frequent short words; `und` without a clear one."""
    text = head[:_VOTE_CHARACTERS] + " " + (tail or head)[-_VOTE_CHARACTERS:]
    if script == "cjk":
        return "ja" if len(_KANA.findall(text)) > _KANA_SHARE * len(text) else "zh"
    if script != "latin":
        return _LANGUAGE_OF_SCRIPT.get(script, "und")
    votes = Counter(code for word in text.lower().split() for code in _VOTES.get(word, ()))
    best = votes.most_common(2)
    if not best or best[0][1] < 2 or (len(best) > 1 and best[0][1] == best[1][1]):
        return "und"
    return best[0][0]


def code_share(head: str, tail: str) -> float:
    """The share of code in the sample: the text in fences, and the rest by its density of signs."""
    # A text begins and ends outside of a fence, so the tail is read from its end.
    outside = [*head.split("```")[::2], *tail.split("```")[::-2]]
    prose = "".join(outside)
    size = len(head) + len(tail)
    if not size:
        return 0.0
    density = len(_western(prose).translate(None, _NOT_CODE)) / (len(prose) + _PRIOR_CHARACTERS)
    share = min(1.0, max(0.0, (density - _PROSE_DENSITY) / (_CODE_DENSITY - _PROSE_DENSITY)))
    return round((size - len(prose) * (1 - share)) / size, 2)


def _western(text: str) -> bytes:
    """The characters of a text that are one byte in Latin-1."""
    return text.encode("latin-1", "ignore")
