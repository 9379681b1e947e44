import json

import pytest

from flan_jax.evaluation.instruction_metrics import instructions_of
from flan_jax.evaluation.instruction_verifiers import VERIFIERS, arguments_of, count_sentences
from flan_jax.evaluation.languages import language_of
from flan_jax.evaluation.metrics import METRICS

AT_LEAST, LESS = {"relation": "at least"}, {"relation": "less than"}


@pytest.mark.parametrize(
    ("name", "arguments", "followed", "broken"),
    [
        ("keywords:existence", {"keywords": ["cat", "c++"]}, "Cats like C++.", "Cats like C."),
        ("keywords:frequency", {"keyword": "cat", "frequency": 2, **AT_LEAST}, "Cat, cats", "one cat"),
        ("keywords:frequency", {"keyword": "cat", "frequency": 2, **LESS}, "one cat", "Cat, cats"),
        ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "concatenate cats", "A Cat!"),
        ("keywords:letter_frequency", {"letter": "A", "let_frequency": 2, "let_relation": "at least"}, "aA", "a"),
        ("language:response_language", {"language": "fr"}, "Le chien dort dans la maison.", "The dog is in the house."),
        ("length_constraints:number_sentences", {"num_sentences": 2, **AT_LEAST}, "One. Two.", "Mr. One came."),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One\n***\nTwo", "One\n***\n***\nTwo"),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "***\nOne\n***\nTwo\n***", "One"),
        ("length_constraints:number_words", {"num_words": 3, **LESS}, "two words", "It's two"),
        ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "So"},
         "One.\n\n'so, two.", "One.\n\nThus two."),
        ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "a"},
         "A!", "A\n\nB"),
        ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] at [a place]", "[name]"),
        ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Hi.\nP.P.S Bye.", "Hi.\nP.S. Bye."),
        ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Hi.\np. s. Bye.", "Hi. PS Bye."),
        ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n- two", "* one\n**two**"),
        ("detectable_format:constrained_response", {}, "My answer is maybe.", "Maybe."),
        ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "*one*", "* * ** **"),
        ("detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 2},
         "Section 1\na\nSection 2\nb", "Section 1\na\nsection 2"),
        ("detectable_format:json_format", {}, '```json\n{"a": [1]}\n```', "{'a': 1}"),
        ("detectable_format:title", {}, "<<Joy>>", "<< >>"),
        ("combination:two_responses", {}, "One\n******\nTwo\n******", "One******One"),
        ("combination:two_responses", {}, "One ****** Two", "One******Two******Three"),
        ("combination:repeat_prompt", {"prompt_to_repeat": "Why?"}, " why? Because.", "Because. Why?"),
        ("startend:end_checker", {"end_phrase": "The end."}, 'So.\n"the end."', "The end. Bye."),
        ("startend:quotation", {}, '"Hi."', '"'),
        ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "less than"},
         "GPU-CPU Mr.", "A B"),
        ("change_case:english_capital", {}, "THE CAT IS ON THE MAT 2!", "LE CHAT EST DANS LA MAISON"),
        ("change_case:english_lowercase", {}, "the cat is on the mat", "the Cat is on the mat"),
        ("punctuation:no_comma", {}, "One; two，three", "One, two"),
    ],
)  # fmt: skip
def test_an_instruction_is_verified_by_its_published_rule(name, arguments, followed, broken):
    assert VERIFIERS[name](followed, **arguments)
    assert not VERIFIERS[name](broken, **arguments)
    (instruction,) = instructions_of({"instruction_id_list": [name], "kwargs": [arguments | {"other": None}]})
    assert instruction.is_followed(followed) and not instruction.is_followed(broken) and not instruction.is_followed("")


def test_every_kind_of_instruction_is_verified():
    kinds = {name.partition(":")[0] for name in VERIFIERS}
    assert len(VERIFIERS) == 25 and kinds == {
        "keywords", "language", "length_constraints", "detectable_content", "detectable_format", "combination",
        "startend", "change_case", "punctuation",
    }  # fmt: skip
    assert arguments_of("keywords:frequency") == ("keyword", "frequency", "relation")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", 0),
        ("no end", 1),
        ("Dr. Who met J. R. Smith. They left!", 2),
        ("It costs 3.5 dollars, e.g. here.", 1),
        ("He came at 5 p.m. Then he left.", 2),
        ("He said no. So did I. We left.", 3),
        ("See No. 5 and fig. 3, etc. of it.", 1),
        ("Apples, pears, etc. Then more.", 2),
        ("Wait... what?! (Yes.) 'So.' End", 5),
        ("猫が好きです。犬も好きです。", 2),
        ("क्या हाल है? ठीक है।", 2),
    ],
)  # fmt: skip
def test_sentences_end_at_full_stops_that_abbreviate_nothing(text, wanted):
    assert count_sentences(text) == wanted


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "The dog sleeps in the house and the children play with a ball."),
        ("es", "El perro duerme en la casa y los niños juegan con una pelota en el jardín."),
        ("pt", "O cachorro dorme na casa e as crianças não brincam com uma bola no jardim."),
        ("de", "Der Hund schläft im Haus und die Kinder spielen mit einem Ball."),
        ("it", "Il cane dorme nella casa e i bambini giocano con una palla nel giardino che è grande."),
        ("sw", "Mbwa analala katika nyumba na watoto wanacheza mpira kwa furaha ya siku hii."),
        ("ru", "Собака спит в доме, и дети играют с мячом в саду, потому что было тепло."),
        ("uk", "Собака спить у будинку, і діти граються з м'ячем у саду, бо це тепло."),
        ("bg", "Кучето спи в къщата и децата играят с топка в градината, защото е топло."),
        ("ar", "الكلب ينام في البيت والأطفال يلعبون مع كرة في الحديقة التي كانت كبيرة."),
        ("fa", "سگ در خانه می خوابد و بچه ها با توپ در باغ بازی می کنند که بزرگ است."),
        ("ur", "کتا گھر میں سوتا ہے اور بچے باغ میں گیند سے کھیلتے ہیں۔"),
        ("hi", "कुत्ता घर में सोता है और बच्चे बगीचे में गेंद से खेलते हैं।"),
        ("mr", "कुत्रा घरात झोपतो आणि मुले बागेत चेंडूने खेळतात, ते आनंदी आहेत."),
        ("ne", "कुकुर घरमा सुत्छ र बच्चाहरू बगैंचामा बल खेल्छन्, यो राम्रो छ।"),
        ("ja", "犬は家で寝ています。"),
        ("zh", "狗在房子里睡觉。"),
        ("ko", "개가 집에서 자고 있다."),
        ("", "12 + 3 = 15"),
    ],
)
def test_a_sentence_shows_its_language(language, text):
    assert language_of(text) == language


def rule(*names, kwargs=None):
    return json.dumps({"instruction_id_list": list(names), "kwargs": kwargs or [{} for _ in names]})


TITLE, COMMA = "detectable_format:title", "punctuation:no_comma"


def test_prompts_count_when_all_of_their_instructions_are_followed_and_instructions_one_by_one():
    result = METRICS["ifeval"].fn([[rule(TITLE, COMMA)], [rule(COMMA)]], ["<<A>> b, c", "no"])
    assert result == {
        "prompt_level_strict_acc": 50.0,
        "prompt_level_loose_acc": 50.0,
        "inst_level_strict_acc": pytest.approx(200 / 3),
        "inst_level_loose_acc": pytest.approx(200 / 3),
    }


@pytest.mark.parametrize(
    "response", ["Sure, here:\nnone", "none\nAnything else, sir?", "Sure,\nnone\nelse, sir", "*,*"]
)
def test_a_loose_accuracy_forgives_a_first_or_last_line_and_asterisks(response):
    wanted = 0.0 if response == "*,*" else 100.0
    result = METRICS["ifeval"].fn([[rule(COMMA)]], [response])
    assert (result["prompt_level_strict_acc"], result["prompt_level_loose_acc"]) == (0.0, wanted)
    end = rule("startend:end_checker", kwargs=[{"end_phrase": "bye."}])
    result = METRICS["ifeval"].fn([[end]], ["**Bye.**"])
    assert (result["inst_level_strict_acc"], result["inst_level_loose_acc"]) == (0.0, 100.0)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("Paris", "Row 0: the metric 'ifeval' reads instructions as JSON .*got 'Paris'.*format: ifeval"),
        ("[]", "must be lists of one length"),
        (rule(COMMA, kwargs=[{}, {}]), "must be lists of one length"),
        (rule("punctuation:no_coma"), "no verifier of the instruction 'punctuation:no_coma'. Did you mean"),
        (rule("count:keywords_multiple"), "Verified are keywords:existence, "),
        (
            rule("length_constraints:number_words"),
            "needs num_words, relation; got {}. Wrong or missing: num_words, rel",
        ),
        (rule("length_constraints:number_words", kwargs=[{"num_words": "3", "relation": "around"}]), "num_words, rel"),
        (rule("keywords:existence", kwargs=[{"keywords": "cat"}]), "Wrong or missing: keywords"),
    ],
)
def test_references_that_are_no_instructions_are_refused(reference, message):
    with pytest.raises(ValueError, match=message):
        METRICS["ifeval"].fn([[reference]], ["x"])
