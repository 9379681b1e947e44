"""Names of FLAN 2021's tasks, both ways; the classes and their forms are those of its released code."""

from flan_jax.collections.flan2021.names import SHOTS, TEMPLATE_COUNTS, TaskName, parse, train_name, without_shot

NAMES = {
    "foo_type_1": {"purpose": "generate", "number": 1},
    "foo_type_1_scoring_eval": {"purpose": "rank", "number": 1},
    "foo_type_9_score_eval_no_options": {"purpose": "rank_no_options", "number": 9},
    "foo_type_0_score_flan_no_options": {"purpose": "rank_flan_no_options", "number": 0},
    "foo_all_prompts": {"purpose": "all_prompts", "number": None},
    "foo_8templates": {"purpose": "train", "number": 8},
    "foo_5templates_one_shot": {"purpose": "train", "number": 5, "shot": "one"},
    "foo_5templates_multi_shot": {"purpose": "train", "number": 5, "shot": "multi"},
    "foo_type_1_two_shot": {"purpose": "generate", "number": 1, "shot": "two"},
    "foo_type_1_scoring_eval_ten_shot": {"purpose": "rank", "number": 1, "shot": "ten"},
}


def test_every_class_of_names_is_read_and_written(subtests):
    for name in NAMES:
        with subtests.test(name):
            said = TaskName(dataset="foo", **NAMES[name])
            assert parse(name) == said and str(said) == name


def test_every_shot_and_count_comes_back():
    for shot in SHOTS:
        for count in TEMPLATE_COUNTS:
            name = train_name("opinion_abstracts_idebate", num_templates=count, shot=shot)
            assert parse(name) == TaskName(
                dataset="opinion_abstracts_idebate", purpose="train", number=count, shot=shot
            )
    assert without_shot("a_three_shot_mix") == ("a_three_shot_mix", "zero")


def test_a_datasets_name_may_look_like_an_ending():
    for dataset in ("foo_type_2", "foo_3templates", "foo_one_shot", "web_nlg_en", "5templates"):
        for name in NAMES.values():
            said = TaskName(dataset=dataset, **name)
            assert parse(str(said)) == said


def test_other_names_are_unknown(subtests):
    for name in [
        "foo",
        "foo_type_",
        "foo_type_x",
        "foo_type_01",
        "_type_1",
        "foo_templates",
        "10templates",
        "foo_type_1_one_shots",
        "foo_one_shot",
        "foo_type_1_scoring",
        "",
    ]:
        with subtests.test(name):
            assert parse(name) is None


def test_shots_are_the_published_numbers():
    assert SHOTS == {"zero": 0, "one": 1, "two": 2, "three": 3, "five": 5, "ten": 10, "multi": 16}
    assert TEMPLATE_COUNTS == (1, 2, 4, 7, 10)


def test_the_tasks_with_one_template():
    assert [parse(name).template for name in ("a_type_3_scoring_eval", "a_7templates", "a_all_prompts")] == [
        3,
        None,
        None,
    ]
    assert parse("a_type_3_scoring_eval").is_rank and not parse("a_type_3").is_rank
