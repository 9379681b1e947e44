"""Numbers in texts, read as people read them: signs, separators, exponents, fractions, percentages and currencies."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

_MINUS = "\u2212\u2012\u2013\ufe63\uff0d"  # The minus sign, dashes that stand for it, and its wide forms.
_CURRENCY = "$€£¥₹₩₽"
_SPACE = "\u00a0\u2009\u202f"  # Spaces that separate thousands; the plain one separates numbers.
_LONGEST = 300  # Characters; a longer run of digits is no answer, and reading it as an integer is slow.
_NUMBER = re.compile(
    rf"""
    (?:(?<![\w)\]%])(?P<sign>[-+]))?             # In 3-4 and 2024-05-06 it joins, and is no sign.
    (?P<currency>[{_CURRENCY}]\s?)?
    (?P<inner_sign>(?<=[{_CURRENCY}])-)?         # $-5
    (?:
      (?:(?<![\d.,/])(?P<whole>\d{{1,3}})[ ])?   # 1 1/2
      (?<![\d./])(?P<numerator>\d+)/(?P<denominator>0*[1-9]\d*)(?![\d/])   # But not 12/05/2024.
    |
      (?P<digits>
        \d{{1,3}}(?:,\d{{3}})+(?!\d)
        | \d{{1,2}}(?:,\d{{2}})+,\d{{3}}(?!\d)   # 12,34,567, as in India.
        | \d{{1,3}}(?:[{_SPACE}']\d{{3}})+(?!\d)
        | \d{{1,3}}(?:\.\d{{3}}){{2,}}(?!\d)      # One point is a decimal point.
        | \d+
        | (?<![\d.])(?=\.\d)
      )
      (?P<decimals>\.\d+)?
      (?: [eE](?P<exponent>[-+]?\d{{1,3}})(?!\w)
        | \s?[x×*·]\s?10\s?(?:\^|\*\*)\s?(?P<power>[-+]?\d{{1,3}})(?!\w) )?
    )
    (?:\s?(?P<unit>%|percent\b|[{_CURRENCY}](?!\d)))?
    """,
    flags=re.VERBOSE,
)
_VULGAR_FRACTION = re.compile("[\u00bc-\u00be\u2150-\u215f]")


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number of a text.

    Attributes:
      text: Its digits in ASCII, with a sign if negative, without separators of thousands and without its unit.
      unit: "%" or the sign of a currency; empty for none.
      is_joined: Whether it continues a word, a range, a date or a time, as the 4 of "B4", "3-4" and "12:04".
    """

    text: str
    unit: str
    is_joined: bool

    @property
    def value(self) -> Fraction | None:
        """The exact value; None where it is too long to be an answer."""
        if len(self.text) > _LONGEST:
            return None
        whole, _, fraction = self.text.rpartition(" ")
        if not whole:
            return Fraction(fraction)
        return Fraction(whole) + (-1 if whole.startswith("-") else 1) * Fraction(fraction)

    def equals(self, other: "Number") -> bool:
        """Returns whether both mean the same: 50% is 50, whose unit is understood, and 0.5, but not $50."""
        if self.unit and other.unit and self.unit != other.unit:
            return False
        one, two = self.value, other.value
        if one is None or two is None:
            return self.text == other.text
        if one == two:
            return True
        if (self.unit == "%") == (other.unit == "%"):
            return False
        return one / 100 == two if self.unit else two / 100 == one


def numbers(text: str) -> list[Number]:
    """Returns the numbers of a text, in order.

    >>> [number.text for number in numbers("From 3-4 to −1,250.50, or 1 1/2 × 10^3")]
    ['3', '4', '-1250.50', '1 1/2', '10', '3']
    >>> [(number.text, number.unit) for number in numbers("$5, 50 %, 1.5e3")]
    [('5', '$'), ('50', '%'), ('1.5e3', '')]
    """
    return list(_numbers(_plain(text)))


def _numbers(text: str) -> Iterator[Number]:
    for match in _NUMBER.finditer(text):
        sign = "-" if "-" in (match["sign"], match["inner_sign"]) else ""
        if match["numerator"]:
            digits = f"{match['numerator']}/{match['denominator']}"
            digits = f"{match['whole']} {digits}" if match["whole"] else digits
        else:
            exponent = match["exponent"] or match["power"]
            digits = re.sub(rf"[,.'{_SPACE}]", "", match["digits"]) + (match["decimals"] or "")
            digits += f"e{exponent}" if exponent else ""
        unit = (match["unit"] or match["currency"] or "").strip()
        before = text[max(match.start() - 2, 0) : match.start()]
        yield Number(
            text=sign + digits,
            unit="%" if unit == "percent" else unit,
            is_joined=bool(re.search(r"[A-Za-z_]$|\d[-/:.,^]$", before)),
        )


def _plain(text: str) -> str:
    """One spelling for signs, digits, Arabic separators and fractions such as ½."""
    if text.isascii():
        return text
    text = re.sub(r"(?<=\d)" + _VULGAR_FRACTION.pattern, r" \g<0>", text)
    text = _VULGAR_FRACTION.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    spelled = dict.fromkeys(map(ord, _MINUS), "-") | {0x2044: "/", 0x066B: ".", 0x066C: ",", 0xFF05: "%", 0x066A: "%"}
    spelled |= {ord(c): str(unicodedata.decimal(c)) for c in set(text) if not c.isascii() and c.isdecimal()}
    return text.translate(spelled)
