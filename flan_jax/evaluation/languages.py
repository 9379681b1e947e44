"""The language of a text, by its script and its most frequent short words; for the 33 languages that IFEval asks for.

A guess without a model: reliable for sentences, not for a few words.
"""

import unicodedata
from collections import Counter
from collections.abc import Mapping

_OF_SCRIPT: Mapping[str, str] = {
    "BENGALI": "bn",
    "TAMIL": "ta",
    "TELUGU": "te",
    "KANNADA": "kn",
    "GUJARATI": "gu",
    "GURMUKHI": "pa",
    "MALAYALAM": "ml",
    "THAI": "th",
    "HANGUL": "ko",
    "HEBREW": "he",
    "GREEK": "el",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "CJK": "zh",
}
"""Scripts, as Unicode's character names begin, that one language is written in."""

_WORDS: Mapping[str, Mapping[str, str]] = {
    "LATIN": {
        "en": "the of and to in is that it for was on are with as be this have from or by you not they we his",
        "es": "el la de que y en los del se las por un para con una su al es lo como más pero sus le",
        "pt": "o a de que e do da em um para com não uma os no se na por mais as dos como mas ao ele",
        "fr": "le la de et les des en un du une que est pour qui dans il au sur par plus ne pas ce se",
        "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an",
        "it": "il di che la e un per in del non della una sono le con si da gli dei al nel è più alla",
        "pl": "w i z na się nie do to że jest o jak po co ale za od przez był dla są tym oraz",
        "fi": "ja on ei se hän että oli joka ovat mutta kun niin myös kuin tai olla jos sen hänen",
        "sw": "ya na wa kwa ni katika la za kuwa hii cha au yake kama watu pia hiyo ambayo",
        "vi": "của và là các có được cho trong một không những với người này để khi đã về",
        "nl": "de het een van en in is dat op te zijn met voor niet aan er om ook als",
    },
    "CYRILLIC": {
        "ru": "и в не на я что он с как это по но из у за от к его она так все был быть бы",
        "uk": "і в не на що з у до як це та але він від за або для про я його її",
        "bg": "на и да се в от за е не са с по че към като със тя той това които",
    },
    "ARABIC": {
        "ar": "في من على إلى أن هذا التي الذي عن مع هذه كان ما لا",
        "fa": "در به از که این را با است برای آن یک می های",
        "ur": "کے میں کی ہے اور سے کا کو اس نے پر ہیں یہ",
    },
    "DEVANAGARI": {
        "hi": "के है में की और से का को यह हैं पर इस एक नहीं कि",
        "mr": "आहे आणि या च्या ते हे होते आहेत एक मध्ये नाही की",
        "ne": "छ र को मा छन् हो गर्न यो पनि ले लाई भएको एक",
    },
}
"""Frequent words of each language by script."""

_LETTERS: Mapping[str, str] = {"ru": "ыэё", "uk": "іїєґ", "ar": "ةأ", "fa": "پژچ", "ur": "ٹڈڑےں", "mr": "ळ"}
"""Letters that the other languages of the script have not, or seldom."""


def language_of(text: str) -> str:
    """Returns the ISO 639-1 code of the language of a text; empty if it is not known.

    >>> language_of("THE CAT IS ON THE MAT."), language_of("猫が好きです"), language_of("12 + 3")
    ('en', 'ja', '')
    """
    scripts = Counter(unicodedata.name(c, "").partition(" ")[0] for c in text if c.isalpha())
    if not scripts:
        return ""
    if scripts["HIRAGANA"] + scripts["KATAKANA"]:
        scripts["HIRAGANA"] += scripts["CJK"]  # Japanese mixes them; Chinese has neither kana.
    script = scripts.most_common(1)[0][0]
    if script not in _WORDS:
        return _OF_SCRIPT.get(script, "")
    # Frequent words tell languages of one script apart; letters are added where few words are shared.
    words = Counter(_with_marks(text.lower()))
    letters = Counter(text.lower())
    points = {
        language: sum(words[word] for word in listed.split()) + sum(letters[one] for one in _LETTERS.get(language, ""))
        for language, listed in _WORDS[script].items()
    }
    best, most = max(points.items(), key=lambda one: one[1])
    return best if most else ""


def _with_marks(text: str) -> list[str]:
    """Returns the words with their marks: vowel signs of Indic scripts are no letters to a regular expression."""
    kept = "".join(c if unicodedata.category(c)[0] in "LM" else " " for c in text)
    return kept.split()
