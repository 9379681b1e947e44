"""The rows of the embedded suite: one recipe per task, and the ranges of its sequence that are the splits.

Every row's `text` is a sentence drawn from a frame, every template of the suite shows it, and no text is in both
splits: a validation prompt is never a training prompt. The splits share words only. Training contains a fact such as
France -> Paris inside other sentences, and validation uses it in combinations (frame x fact x other words) that are not
in training. Validation accuracy thus measures the recognition of known facts in new sentences, not new knowledge.
"""

from collections.abc import Iterator

from flan_jax.collections.embedded import stories, words
from flan_jax.collections.embedded.draw import Recipe, Row, by_word, different_rows, facts, labeled

VALIDATION_ROWS = 60
TRAIN_ROWS = 500
# Where the answer depends on a role in the sentence, a few hundred rows would be memorized before the rule is learned.
TRAIN_ROWS_BY_ROLE = 1500
BY_ROLE = ("who_did_it", "where_is_it", "what_colour", "sentence_in_past", "swapped_people", "negated")
SPLITS = ("train", "validation")


RECIPES: dict[str, Recipe] = {
    # sentiment
    "film_verdict": labeled(
        {"positive": words.PRAISE, "negative": words.BLAME},
        (
            "The {part} was {cue} and the {part} was {cue}.",
            "{name} and I thought the {part} was {cue}.",
            "I saw it on {day} and the {part} is simply {cue}.",
            "A {cue} film, and the {part} is {cue} too.",
            "With the {part} as {cue} as that, I told my {relative} about it.",
            "My {relative} called the {part} {cue}, and I agree.",
        ),
        part=words.FILM_PARTS,
    ),
    "meal_opinion": labeled(
        {"yes": words.PRAISE, "no": words.BLAME},
        (
            "The {dish} was {cue} and so was the {dish}.",
            "On {day} {name} had the {dish}, and it tasted {cue}.",
            "How {cue} the {dish} is that they serve here in the {time}!",
            "We ordered the {dish} with {dish}; both were {cue}.",
            "A {cue} place: the {dish} was {cue} when I came with {name}.",
            "My {relative} said that the {dish} is {cue}.",
        ),
        dish=words.DISHES,
    ),
    "speaker_emotion": labeled(
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
    "headline_topic": labeled(
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
    "hobby": labeled(
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
    "shop_department": labeled(
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
    "word_class": stories.word_class,
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
    "day_shift": stories.day_shift,
    "larger_number": stories.larger_number,
    # reading
    "who_did_it": stories.who_did_it,
    "where_is_it": stories.where_is_it,
    "what_colour": stories.what_colour,  # British, as the texts of the suite are: they are published data.
    # rewriting
    "sentence_in_past": stories.sentence_in_past,
    "swapped_people": stories.swapped_people,
    "negated": stories.negated,
    # feedback (held out)
    "product_recommendation": labeled(
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
    "service_feedback": labeled(
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
    "statement_check": stories.statement_check,
    "same_meaning": stories.same_meaning,
}


def rows(task: str, split: str) -> Iterator[Row]:
    """Yields the rows of one split of an embedded task, the same at every call.

    >>> next(rows("capital_city", "validation"))
    {'text': 'A parcel from Iceland arrived for Ida.', 'word': 'Iceland', 'answer': 'Reykjavik'}
    """
    if split == "validation":
        # The validation rows come first in the sequence, so that another number of training rows does not change them.
        start, stop = 0, VALIDATION_ROWS
    else:
        start, stop = VALIDATION_ROWS, VALIDATION_ROWS + (TRAIN_ROWS_BY_ROLE if task in BY_ROLE else TRAIN_ROWS)
    return different_rows(task, RECIPES[task], start=start, stop=stop)
