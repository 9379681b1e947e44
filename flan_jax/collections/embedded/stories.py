"""Recipes of the embedded suite whose answer needs more than a table: by role in the sentence, by order, by rewriting.

`recipes.RECIPES` names them, next to those that look up a word in a table.
"""

from flan_jax.collections.embedded import words
from flan_jax.collections.embedded.draw import Draw, Row, by_word


def word_class(draw: Draw) -> Row:
    """A word inside a sentence; its class is the answer."""
    word = draw.pick(tuple(by_word(words.WORD_CLASSES)))
    answer = by_word(words.WORD_CLASSES)[word]
    frames = {
        "noun": (
            "The {word} is close to the {place}.",
            "{name} drew the {word} on {day}.",
            "In {month} my {relative} saw a {word}.",
        ),
        "verb": (
            "They {word} near the {place} every {day}.",
            "{name} had to {word} on {day}.",
            "In {month} we {word} with my {relative}.",
        ),
        "adjective": (
            "The {word} man near the {place} waved.",
            "{name} was {word} on {day}.",
            "In {month} my {relative} was very {word}.",
        ),
    }
    return {"text": draw.fill(frames[answer], word=word), "word": word, "answer": answer}


def day_shift(draw: Draw) -> Row:
    """Today's day and something that happened before or happens after it; the other day is the answer."""
    today, shift = draw.pick(range(7)), draw.pick(tuple(words.DAY_FRAMES))
    text = draw.fill(words.DAY_FRAMES[shift], today=words.DAYS[today])
    return {"text": text, "answer": words.DAYS[(today + shift) % 7]}


def larger_number(draw: Draw) -> Row:
    """Two different numbers in words; the larger is the answer."""
    first, second = draw.several(range(1, 13), 2)
    frames = (
        "{name} has {first} {counted} and {name} has {second}.",
        "There are {first} {counted} in the {room} and {second} in the {room}.",
        "On {day} we sold {first} {counted}, and {second} on {day}.",
        "My {relative} owns {first} {counted} but only needs {second}.",
        "Here are {first} {counted}, and {second} are in the {room}.",
    )
    text = draw.fill(frames, first=words.NUMBERS[first], second=words.NUMBERS[second], counted=words.COUNTED)
    return {"text": text, "answer": words.NUMBERS[max(first, second)]}


def who_did_it(draw: Draw) -> Row:
    """Someone did something for someone else; the doer is the answer."""
    doer, receiver = draw.several(words.NAMES, 2)
    verb, gift = draw.pick(words.MADE), draw.pick(words.GIFTS)
    frames = (
        "{doer} {verb} a {gift} for {receiver}.",
        "On {day} {doer} {verb} the {gift} for {receiver}.",
        "For {receiver}, {doer} {verb} a {colour} {gift}.",
        "In the {room}, {doer} {verb} a {gift} for {receiver}.",
        "{doer} and nobody else {verb} the {gift} for {receiver} in {month}.",
    )
    text = draw.fill(frames, doer=doer, receiver=receiver, verb=verb, gift=gift)
    return {"text": text, "verb": verb, "gift": gift, "answer": doer}


def where_is_it(draw: Draw) -> Row:
    """A thing is moved from one room to another; where it is now is the answer."""
    start, end = draw.several(words.ROOMS, 2)
    thing = draw.pick(words.THINGS)
    frames = (
        "{name} carried the {thing} from the {start} to the {end}.",
        "On {day} {name} brought the {thing} to the {end}, away from the {start}.",
        "From the {start} the {colour} {thing} was taken to the {end}.",
        "My {relative} moved the {thing} to the {end} from the {start}.",
        "The {colour} {thing} came from the {start} to the {end} in {month}.",
    )
    text = draw.fill(frames, thing=thing, start=start, end=end)
    return {"text": text, "thing": thing, "answer": end}


def what_colour(draw: Draw) -> Row:
    """A colored thing on a colored piece of furniture; the color of the thing is the answer."""
    (answer, other), thing = draw.several(words.COLORS, 2), draw.pick(words.THINGS)
    frames = (
        "The {answer} {thing} stands on the {other} {support}.",
        "{name} put a {answer} {thing} on a {other} {support}.",
        "On a {other} {support} in the {room} lies the {answer} {thing}.",
        "Since {day} there is a {other} {support} for the {answer} {thing}.",
        "My {relative} left the {answer} {thing} under a {other} {support}.",
    )
    text = draw.fill(frames, answer=answer, other=other, thing=thing, support=words.SUPPORTS)
    return {"text": text, "thing": thing, "answer": answer}


def sentence_in_past(draw: Draw) -> Row:
    """A short sentence in the present; the same sentence in the past is the answer."""
    present = draw.pick(tuple(words.PAST_FORMS))
    text = draw.fill(
        (
            "{name} {verb} in the {place}.",
            "Every {day} {name} {verb} with {name}.",
            "My {relative} {verb} near the {place}.",
            "In the {time} {name} {verb}.",
        ),
        verb=present,
    )
    # With the space before it, so that the end of another word is not replaced.
    return {"text": text, "answer": text.replace(f" {present}", f" {words.PAST_FORMS[present]}")}


def swapped_people(draw: Draw) -> Row:
    """Someone does something to someone; the sentence with the two exchanged is the answer."""
    first, second = draw.several(words.NAMES, 2)
    frame = draw.pick(
        ("{first} {verb} {second}.", "On {day} {first} {verb} {second}.", "{first} {verb} {second} in {month}.")
    )
    verb, day, month = draw.pick(words.DONE_TO), draw.pick(words.DAYS), draw.pick(words.MONTHS)
    text, answer = (
        frame.format(first=one, second=other, verb=verb, day=day, month=month)
        for one, other in ((first, second), (second, first))
    )
    return {"text": text, "answer": answer}


def negated(draw: Draw) -> Row:
    """A statement; the statement with "not" is the answer."""
    text = draw.fill(
        (
            "The {thing} is {colour}.",
            "{name} is in the {room}.",
            "The {thing} of {name} is {colour}.",
            "My {relative} is in the {place} on {day}.",
            "The {thing} in the {room} is {colour}.",
        )
    )
    return {"text": text, "answer": text.replace(" is ", " is not ")}


def statement_check(draw: Draw) -> Row:
    """A sentence and a claim about it, which is the same story or differs in one word; true or false."""
    name, other_name = draw.several(words.NAMES, 2)
    thing, other_thing = draw.several(words.THINGS, 2)
    room, other_room = draw.several(words.ROOMS, 2)
    answer = draw.pick(("true", "false"))
    text = draw.fill(
        ("{who} put the {what} in the {where} on {day}.", "In {month} {who} left the {what} in the {where}."),
        who=name, what=thing, where=room,
    )  # fmt: skip
    # One change only: a claim about another story would be recognized by any of its words.
    changed = draw.pick(("who", "what", "where")) if answer == "false" else None
    claim = draw.fill(
        ("{who} put the {what} in the {where}.", "The {what} was put in the {where} by {who}."),
        who=other_name if changed == "who" else name,
        what=other_thing if changed == "what" else thing,
        where=other_room if changed == "where" else room,
    )
    return {"text": text, "claim": claim, "answer": answer}


def same_meaning(draw: Draw) -> Row:
    """Two sentences that differ in an adjective, a synonym or an opposite; whether they mean the same."""
    word = draw.pick(tuple(words.SYNONYMS))
    answer = draw.pick(("yes", "no"))
    thing = draw.pick(words.THINGS)
    frames = (
        "The {thing} of {name} is {word}.",
        "On {day} the {thing} was {word}.",
        "{name} thinks the {thing} is {word}.",
    )
    text = draw.fill(frames, thing=thing, word=word)
    other = words.SYNONYMS[word] if answer == "yes" else words.OPPOSITES[word]
    return {"text": text, "second": text.replace(f" {word}.", f" {other}."), "answer": answer}
