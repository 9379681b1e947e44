"""The rows of the embedded suite: one recipe a task, and which rows of its sequence are which split.

Every row's `text` is a sentence drawn from a frame, every template of the suite shows it, and no text is in both splits:
a validation prompt is never a training prompt. What the splits do share is the words. A fact such as France -> Paris
is met in training inside other sentences, and validation asks for it in combinations (frame x fact x other words) that
training never shows. Validation accuracy thus measures finding the known thing in a new sentence, not knowing new things.
"""

from collections.abc import Iterator

from flan_jax.tasks import embedded_words as words
from flan_jax.tasks.embedded_draw import Draw, Recipe, Row, different_rows, facts, labelled

VALIDATION_ROWS = 60
TRAIN_ROWS = 500
# Where the answer has to be found by its role in the sentence, a few hundred rows are learned by heart sooner than the rule.
TRAIN_ROWS_BY_ROLE = 1500
BY_ROLE = ("who_did_it", "where_is_it", "what_colour", "sentence_in_past", "swapped_people", "negated")
SPLITS = ("train", "validation")


def by_word(table: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """Turns label -> words into word -> label."""
    return {word: label for label, members in table.items() for word in members}


def word_class(draw: Draw) -> Row:
    """A word inside a sentence; its class is the answer."""
    word = draw.pick(tuple(by_word(words.WORD_CLASSES)))
    answer = by_word(words.WORD_CLASSES)[word]
    frames = {
        "noun": ("The {word} is close to the {place}.", "{name} drew the {word} on {day}.", "In {month} my {relative} saw a {word}."),
        "verb": ("They {word} near the {place} every {day}.", "{name} had to {word} on {day}.", "In {month} we {word} with my {relative}."),
        "adjective": ("The {word} man near the {place} waved.", "{name} was {word} on {day}.", "In {month} my {relative} was very {word}."),
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
    """A coloured thing on a coloured piece of furniture; the colour of the thing is the answer."""
    (answer, other), thing = draw.several(words.COLOURS, 2), draw.pick(words.THINGS)
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
    return {"text": text, "answer": text.replace(f" {present}", f" {words.PAST_FORMS[present]}")}


def swapped_people(draw: Draw) -> Row:
    """Someone does something to someone; the sentence with the two exchanged is the answer."""
    first, second = draw.several(words.NAMES, 2)
    frame = draw.pick(("{first} {verb} {second}.", "On {day} {first} {verb} {second}.", "{first} {verb} {second} in {month}."))
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
    frames = ("The {thing} of {name} is {word}.", "On {day} the {thing} was {word}.", "{name} thinks the {thing} is {word}.")
    text = draw.fill(frames, thing=thing, word=word)
    other = words.SYNONYMS[word] if answer == "yes" else words.OPPOSITES[word]
    return {"text": text, "second": text.replace(f" {word}.", f" {other}."), "answer": answer}


RECIPES: dict[str, Recipe] = {
    # sentiment
    "film_verdict": labelled(
        {"positive": words.PRAISE, "negative": words.BLAME},
        (
            "The {part} was {cue} and the {part} was {cue}.",
            "{name} and I thought the {part} was {cue}.",
            "I saw it on {day} and the {part} is simply {cue}.",
            "A {cue} film, and the {part} is {cue} too.",
            "After such a {cue} {part}, I told my {relative} about it.",
            "My {relative} called the {part} {cue}, and I agree.",
        ),
        part=words.FILM_PARTS,
    ),
    "meal_opinion": labelled(
        {"yes": words.PRAISE, "no": words.BLAME},
        (
            "The {dish} was {cue} and so was the {dish}.",
            "On {day} {name} had the {dish}, and it tasted {cue}.",
            "What a {cue} {dish} they serve here in the {time}!",
            "We ordered the {dish} with {dish}; both were {cue}.",
            "A {cue} place: the {dish} was {cue} when I came with {name}.",
            "My {relative} said that the {dish} is {cue}.",
        ),
        dish=words.DISHES,
    ),
    "speaker_emotion": labelled(
        words.EMOTIONS,
        (
            "{name} {cue} when {event}.",
            "When {event}, {name} {cue}.",
            "On {day} {name} {cue} because {event}.",
            "My {relative} {cue} as soon as {event}.",
            "{name} {cue} in the {room} after {event}.",
            "{name} {cue} and {cue} when {event}.",
        ),
        event=words.EVENTS,
    ),
    # topic
    "headline_topic": labelled(
        words.HEADLINE_TOPICS,
        (
            "All of {city} talks about the {cue}.",
            "The {cue} in {city} surprised everyone on {day}.",
            "New report on the {cue} and the {cue} expected in {month}.",
            "{city} remembers the {cue} of last {month}.",
            "What the {cue} means for {city} this {time}.",
            "After the {cue}, another {cue} for {city}.",
        ),
        city=words.CITIES,
    ),
    "hobby": labelled(
        words.HOBBIES,
        (
            "{name} spent {day} with a {cue} and a {cue}.",
            "A new {cue} is what {name} wants for {month}.",
            "My {relative} cannot live without a {cue}.",
            "In the {time} {name} looks for the {cue}.",
            "{name} showed {name} the {cue} that came on {day}.",
            "Next to the {cue} there is a {cue}, says my {relative}.",
        ),
    ),
    "shop_department": labelled(
        words.DEPARTMENTS,
        (
            "A customer asks for a {colour} {cue}.",
            "{name} wants to return the {cue} bought on {day}.",
            "Do you sell a {cue} like the one {name} has?",
            "My {relative} needs a {cue} and a {cue}.",
            "The {colour} {cue} in the window is for {name}.",
            "In {month} the {cue} and the {cue} cost less.",
        ),
    ),
    # grammar
    "plural_form": facts(
        words.PLURALS,
        (
            "There is one {word} near the {place}.",
            "{name} noticed a {word} on {day}.",
            "My {relative} drew a {colour} {word}.",
            "In {month} {name} dreamt of a {word}.",
            "A {word} was seen in the {place} this {time}.",
        ),
    ),
    "past_tense": facts(
        words.PAST_TENSES,
        (
            "They often {word} near the {place}.",
            "I {word} every {day} with {name}.",
            "In {month} we {word} with my {relative}.",
            "In the {time} you {word} better than {name}.",
            "{name} and I {word} in the {place}.",
        ),
    ),
    "word_class": word_class,
    # word meaning
    "opposite_word": facts(
        words.OPPOSITES,
        (
            "{name} says the {thing} is {word}.",
            "Near the {place} everything looked {word}.",
            "On {day} it was {word} in the {room}.",
            "My {relative} finds the {thing} too {word}.",
            "How {word} it was in {month}, said {name}.",
        ),
    ),
    "kind_of_thing": facts(
        by_word(words.KINDS),
        (
            "{name} pointed at a {word} near the {place}.",
            "On {day} my {relative} asked about the {word}.",
            "There is a picture of a {word} in the {room}.",
            "{name} wrote a poem about a {colour} {word}.",
            "In {month} {name} dreamt of a {word}.",
        ),
    ),
    "young_animal": facts(
        words.YOUNG_ANIMALS,
        (
            "{name} saw a {word} near the {place}.",
            "On {day} a {word} walked through the {place}.",
            "My {relative} takes care of a {word}.",
            "In {month} {name} took a photo of a {word}.",
            "There is a {colour} {word} on the wall of the {room}.",
        ),
    ),
    # knowledge
    "capital_city": facts(
        words.CAPITALS,
        (
            "My {relative} is on the way to {word}.",
            "{name} spent {month} in {word}.",
            "On {day} {name} will fly to {word}.",
            "A parcel from {word} arrived for {name}.",
            "{name} wants to study in {word} next {month}.",
        ),
    ),
    "language_spoken": facts(
        words.LANGUAGES,
        (
            "{name} grew up in {word}.",
            "My {relative} has friends in {word} and in the {place}.",
            "The letter that came on {day} is from {word}.",
            "In {month} {name} moved to {word}.",
            "{name} met someone from {word} at the {place}.",
        ),
    ),
    "workplace": facts(
        words.WORKPLACES,
        (
            "{name} has been a {word} since {month}.",
            "My {relative} married a {word}.",
            "On {day} {name} talked with the {word}.",
            "{name} would like to become a {word}.",
            "The {word} and my {relative} met near the {place}.",
        ),
    ),
    # numbers and time
    "number_in_digits": facts(
        words.DIGITS,
        (
            "{name} counted {word} {counted} on {day}.",
            "There are {word} {counted} in the {room}.",
            "My {relative} ordered {word} {counted}.",
            "We need {word} {counted} before {month}.",
            "{name} lost {word} of the {counted} near the {place}.",
        ),
        counted=words.COUNTED,
    ),
    "day_shift": day_shift,
    "larger_number": larger_number,
    # reading
    "who_did_it": who_did_it,
    "where_is_it": where_is_it,
    "what_colour": what_colour,
    # rewriting
    "sentence_in_past": sentence_in_past,
    "swapped_people": swapped_people,
    "negated": negated,
    # feedback (held out)
    "product_recommendation": labelled(
        {"yes": words.PRAISE, "no": words.BLAME},
        (
            "I bought this {product} in {month} and it is {cue}.",
            "My {relative} uses the {product} every {day}: {cue}.",
            "The {colour} {product} looks {cue} and works in a {cue} way.",
            "{name} gave me this {cue} {product}.",
            "Honestly, a {cue} {product}.",
        ),
        product=words.PRODUCTS,
    ),
    "service_feedback": labelled(
        {"positive": words.PRAISE, "negative": words.BLAME},
        (
            "The {service} on {day} was {cue}.",
            "Dear all, your {service} is {cue}. Regards, {name}.",
            "For me the {service} was {cue}, and the {service} was {cue} as well.",
            "{name} from your office gave us a {cue} {service} in {month}.",
            "I can only call the {service} this {time} {cue}.",
        ),
        service=words.SERVICES,
    ),
    # inference (held out)
    "statement_check": statement_check,
    "same_meaning": same_meaning,
}


def rows(task: str, split: str) -> Iterator[Row]:
    """Yields the rows of one split of an embedded task, the same ones every time.

    >>> next(rows("capital_city", "validation"))
    {'text': 'My neighbour is on the way to Peru.', 'word': 'Peru', 'answer': 'Lima'}
    """
    if split == "validation":
        start, stop = 0, VALIDATION_ROWS
    else:
        start, stop = VALIDATION_ROWS, VALIDATION_ROWS + (TRAIN_ROWS_BY_ROLE if task in BY_ROLE else TRAIN_ROWS)
    return different_rows(task, RECIPES[task], start=start, stop=stop)
