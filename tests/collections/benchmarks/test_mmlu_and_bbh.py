import json

import pytest

from flan_jax.collections.benchmarks import bbh, mmlu
from flan_jax.collections.catalog import FolderSettings
from flan_jax.tasks.rendering import iter_rendered


@pytest.fixture
def mmlu_folder(tmp_path):
    for split, count in (("dev", 5), ("val", 1), ("test", 2)):
        (tmp_path / split).mkdir()
        rows = [f'"What, {split} {i}?",one,"two, three",3,4,{"ABCD"[i % 4]}\n' for i in range(count)]
        (tmp_path / split / f"us_foreign_policy_{split}.csv").write_text("".join(rows))
    return tmp_path


def rendered(task, split="test"):
    return [row.rendered for row in iter_rendered(task, split, count_tokens=len)]


def test_mmlu_ranks_letters_after_the_released_prompt(mmlu_folder):
    found = mmlu.contents(FolderSettings(data_dir=mmlu_folder)).find("mmlu_us_foreign_policy")
    first, second = rendered(found)
    assert first.inputs == (
        "The following are multiple choice questions (with answers) about us foreign policy.\n\n"
        "What, test 0?\nA. one\nB. two, three\nC. 3\nD. 4\nAnswer:"
    )
    assert (first.targets, second.targets, first.options) == ("A", "B", ("A", "B", "C", "D"))
    assert (found.evaluation, found.cluster) == ("rank", "social_sciences")


def test_mmlus_five_shot_prompt_has_all_questions_of_the_development_split_before_the_query(mmlu_folder):
    found = mmlu.contents(FolderSettings(data_dir=mmlu_folder)).find("mmlu_us_foreign_policy_five_shot")
    first = rendered(found)[0].inputs
    introduction, *questions = first.split("\n\n")
    assert introduction == "The following are multiple choice questions (with answers) about us foreign policy."
    assert len(questions) == 6 and questions[-1] == "What, test 0?\nA. one\nB. two, three\nC. 3\nD. 4\nAnswer:"
    expected = {f"What, dev {i}?\nA. one\nB. two, three\nC. 3\nD. 4\nAnswer: {'ABCDA'[i]}" for i in range(5)}
    assert set(questions[:-1]) == expected


def test_mmlu_step_by_step_compares_the_letter_in_parentheses(mmlu_folder):
    found = mmlu.contents(FolderSettings(data_dir=mmlu_folder)).find("mmlu_us_foreign_policy_cot")
    first = rendered(found)[0]
    assert first.inputs.endswith("D. 4\nLet's think step by step.") and first.targets == "(A)"
    assert (found.evaluation, found.postprocessor) == ("generate", "chain_of_thought")


def test_mmlu_has_57_subjects_in_four_categories_and_says_which_files_it_lacks(mmlu_folder):
    contents = mmlu.contents(FolderSettings(data_dir=mmlu_folder))
    assert {name: len(subjects) for name, subjects in mmlu.SUBJECTS.items()} == {
        "stem": 18, "humanities": 13, "social_sciences": 12, "other": 14,
    }  # fmt: skip
    assert len(contents.find("mmlu").members) == len(set(contents.find("mmlu_cot").members)) == 57
    assert "anatomy_test.csv" in contents.find("mmlu_anatomy").source.unavailable("test")
    with pytest.raises(FileNotFoundError, match="contains no MMLU: expected test/<subject>_test.csv"):
        mmlu.contents(FolderSettings(data_dir=mmlu_folder / "dev"))


PROMPT = """BIG-Bench canary GUID 1
-----
Say whether you return.

Q: Turn {around}. Options:
- Yes
- No
A: Let's think step by step.
We turn.

We do not move. So the answer is Yes.

Q: Go.
A: Let's think step by step.
We go. So the answer is No.
"""


@pytest.fixture
def bbh_folder(tmp_path):
    (tmp_path / "bbh").mkdir()
    (tmp_path / "cot-prompts").mkdir()
    examples = [{"input": "Jump.", "target": "Yes"}, {"input": "Run {far}.", "target": "No"}]
    (tmp_path / "bbh" / "navigate.json").write_text(json.dumps({"canary": "1", "examples": examples}))
    (tmp_path / "cot-prompts" / "navigate.txt").write_text(PROMPT)
    return tmp_path


def test_bbh_asks_directly_or_step_by_step_with_the_released_exemplars_or_without(bbh_folder):
    contents = bbh.contents(FolderSettings(data_dir=bbh_folder))
    inputs = {variant: rendered(contents.find(f"bbh_navigate{variant}"))[1].inputs for variant in bbh.VARIANTS}
    question = "Q: Run {far}.\nA:"
    exemplars = PROMPT.partition("-----\n")[2]
    assert inputs[""] == question and inputs["_cot"] == question + " Let's think step by step."
    assert inputs["_cot_three_shot"] == exemplars.strip() + "\n\n" + inputs["_cot"]
    assert inputs["_three_shot"] == (
        "Say whether you return.\n\nQ: Turn {around}. Options:\n- Yes\n- No\nA: Yes\n\nQ: Go.\nA: No\n\n" + question
    )


def test_a_changed_prompt_is_another_revision(bbh_folder):
    source = bbh.record("navigate", bbh_folder, variant="_three_shot").source
    before = source.revision("test")
    assert before != bbh.record("navigate", bbh_folder, variant="_cot_three_shot").source.revision("test")
    (bbh_folder / "cot-prompts" / "navigate.txt").write_text(PROMPT + "\n")
    assert source.revision("test") != before


def test_bbh_has_23_tasks_in_27_files_and_refuses_other_files(bbh_folder):
    assert len(bbh.TASKS) == 27 and len(set(bbh.TASKS.values())) == 23
    assert len(bbh.contents(FolderSettings(data_dir=bbh_folder)).find("bbh_cot").members) == 27
    with pytest.raises(FileNotFoundError, match="contains no BIG-Bench Hard: expected bbh/<task>.json"):
        bbh.contents(FolderSettings(data_dir=bbh_folder / "bbh"))
    (bbh_folder / "bbh" / "snarks.json").write_text('[{"input": "a"}]')
    with pytest.raises(ValueError, match="snarks.json is no file of BIG-Bench Hard: expected an object with examples"):
        rendered(bbh.record("snarks", bbh_folder, variant=""))
