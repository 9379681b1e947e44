"""What FLAN 2021's rows go through before they stand in a sentence."""

from flan_jax.collections.flan2021.repairs import as_question, separate_articles, without_dateline


def test_an_article_without_a_dateline_stays_as_it_is():
    for article in (
        "Snow fell in Oslo (the capital) -- as it does every year.",
        "Its network (CNN) said so.",
        "The report of May 2013 . was late .",
        "She said: (it is cold). " + "Snow fell. " * 50 + "PUBLISHED: 2013 . More.",
    ):
        assert without_dateline(article) == article.strip()


def test_datelines_of_either_version_of_tfds_are_removed():
    for dateline in ("(CNN)", "(CNN) ", "Oslo (CNN)", "OSLO, Norway (Reuters) -- "):
        assert without_dateline(dateline + "Snow fell.") == "Snow fell."
    assert (
        without_dateline("By. A. Writer. PUBLISHED:. 07:02 EST, 8 June 2013. |. UPDATED:. 9 June 2013. Snow.")
        == "Snow."
    )


def test_articles_with_their_own_line_breaks_are_separated_equally():
    assert separate_articles("One.\n \n Two. ||||| Three.") == "One.\nTwo.\n\nThree."


def test_an_empty_question_stays_empty():
    assert as_question(" ? ") == "" and as_question("why??") == "why?"
