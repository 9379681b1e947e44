"""Real rows of FLAN 2021's datasets with options, from the original files, in the shape that TFDS gives them.

Where only Super-NaturalInstructions has copied a dataset, its instances are taken apart.
"""

import csv
import gzip
import io
import json
import re

import numpy as np

ENTAILMENT = ("entailment", "neutral", "contradiction")
CB = ("entailment", "contradiction", "neutral")
TREC = ("DESC", "ENTY", "ABBR", "HUM", "NUM", "LOC")


def text_of(path):
    content = path.read_bytes()
    return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")


def json_lines(path):
    return [json.loads(line) for line in text_of(path).splitlines()]


def tab_separated(path, *, header=True):
    lines = [line.split("\t") for line in text_of(path).splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]] if header else lines


def instances(data, task):
    """Pairs of input and output of a Super-NaturalInstructions task."""
    content = json.loads(text_of(data / f"superni_flan_tasks/{task}.json.gz"))
    return [(row["input"], row["output"][0].strip(". ")) for row in content["Instances"]]


def with_letters(text):
    """ "Why? (A) so (B) or so" -> ("Why?", ["so", "or so"])."""
    question, *choices = (part.strip() for part in re.split(r"\(([A-E])\) ", text))
    return question, choices[1::2]


def rte(data):
    rows = [{**row, "label": CB.index(row["label"])} for row in _rte_lines(data)]
    return [row for row in rows if row["label"] in (0, 1)]


def _rte_lines(data):
    for row in json_lines(data / "superglue_rte/val.jsonl.gz"):
        yield {**row, "label": row["label"].replace("not_entailment", "contradiction")}
    for row in tab_separated(data / "glue_rte/train.tsv.gz"):
        label = row["label"].replace("not_entailment", "contradiction")
        yield {"premise": row["sentence1"], "hypothesis": row["sentence2"], "label": label}


def cb(data):
    return [{**row, "label": CB.index(row["label"])} for row in json_lines(data / "superglue_cb/val.jsonl.gz")]


def wnli(data):
    rows = tab_separated(data / "glue_wnli/dev.tsv") + tab_separated(data / "glue_wnli/train.tsv.gz")
    return [{**row, "label": int(row["label"])} for row in rows]


def anli(data, *, task):
    rows = (re.split(r" <sep> Hypothesis: ", text) + [label] for text, label in instances(data, task))
    return [
        {
            "context": texts[0].removeprefix("Premise: "),
            "hypothesis": texts[1],
            "label": ENTAILMENT.index(label.lower()),
        }
        for *texts, label in rows
    ]


def snli(data):
    """e-SNLI's, since the copy of SNLI itself (task190) calls its entailments contradictions."""
    rows = ((*text.split(" <sep> "), label) for text, label in instances(data, "nli/task640_esnli_classification"))
    return [{"premise": p, "hypothesis": h, "label": ENTAILMENT.index(label)} for p, h, label in rows]


def mrpc(data):
    rows = []
    for text, label in instances(data, "paraphrase/task1288_glue_mrpc_paraphrasing"):
        first, second = text.removeprefix("Sentence1: ").split(", Sentence2: ")
        rows.append({"sentence1": first, "sentence2": second, "label": ("No", "Yes").index(label)})
    return rows


def paws(data):
    rows = []
    for text, label in instances(data, "paraphrase/task400_paws_paraphrase_classification"):
        first, second = text.split("\n")
        rows.append({"sentence1": first, "sentence2": second, "label": ("Not paraphrase", "Paraphrase").index(label)})
    return rows


def stsb(data):
    lines = tab_separated(data / "glue_stsb/sts-dev.csv.gz", header=False)
    return [{"label": float(np.float32(line[4])), "sentence1": line[5], "sentence2": line[6]} for line in lines]


def sst2(data):
    lines = text_of(data / "sst2/stsa.binary.dev.txt").splitlines()
    return [{"sentence": line[2:], "label": int(line[0])} for line in lines]


def sentiment140(data):
    rows = instances(data, "sentiment/task195_sentiment140_classification")
    return [{"text": text, "polarity": {"negative": 0, "positive": 4}[label]} for text, label in rows]


def yelp(data):
    rows = instances(data, "sentiment/task746_yelp_restaurant_review_classification")
    return [{"text": text, "label": ("negative", "positive").index(label)} for text, label in rows]


def wic(data):
    rows = []
    for text, label in instances(data, "misc/task625_xlwic_true_or_false_answer_generation"):
        word, first, second = re.split(r" \n Sentence[12]: ", text)
        rows.append({"word": word, "sentence1": first, "sentence2": second, "label": ("False", "True").index(label)})
    return rows


def cola(data):
    lines = tab_separated(data / "glue_cola/in_domain_dev.tsv.gz", header=False)
    return [{"sentence": line[3], "label": int(line[1])} for line in lines]


def trec(data):
    lines = (line.split(" ", 1) for line in text_of(data / "trec/TREC.test.txt").splitlines())
    return [{"label-coarse": TREC.index(label.split(":")[0]), "text": text} for label, text in lines]


def dpr(data):
    blocks = text_of(data / "dpr/test.c.txt").strip().split("\n\n")
    rows = []
    for sentence, pronoun, candidates, answer in (block.splitlines() for block in blocks):
        names = [name.strip() for name in candidates.split(",")]
        label = names.index(answer.strip())
        rows.append({"sentence": sentence, "pronoun": pronoun, "candidates": names, "label": label})
    return rows


def winogrande(data):
    rows = []
    for text, label in instances(data, "coreference/task1391_winogrande_easy_answer_generation"):
        sentence, (first, second) = with_letters(text)
        rows.append({"sentence": sentence, "option1": first, "option2": second, "label": "AB".index(label)})
    return rows


def wsc(data):
    rows = json_lines(data / "superglue_wsc/val.jsonl.gz") + json_lines(data / "superglue_wsc/fewglue_train.jsonl")
    return [{**row, **row["target"], "label": int(row["label"])} for row in rows]


def wsc273(data):
    blocks = re.split(r"\n\s*\n", text_of(data / "wsc273/wsc273.txt").strip())
    rows = []
    for sentence, mask, candidates, answer in (block.splitlines() for block in blocks):
        names = [name.strip() for name in candidates.split(",")]
        start = sentence.index(mask.strip())
        place = {"pronoun_start": start, "pronoun_end": start + len(mask.strip())}
        options = {f"option{i}_normalized": name for i, name in enumerate(names, start=1)}
        rows.append({"text": sentence, **place, **options, "label": names.index(answer.strip())})
    return rows


def copa(data):
    return json_lines(data / "superglue_copa/val.jsonl") + json_lines(data / "superglue_copa/fewglue_train.jsonl")


def piqa(data):
    labels = text_of(data / "piqa/valid-labels.lst").split()
    rows = json_lines(data / "piqa/valid.jsonl.gz")
    return [{**row, "label": int(label)} for row, label in zip(rows, labels, strict=True)]


def story_cloze(data):
    rows = []
    for text, label in instances(data, "commonsense/task296_storycloze_correct_end_classification"):
        context, endings = with_letters(text)
        context = " ".join(part.strip() for part in re.split(r"Sentence[1-4]: ", context)[1:])
        rows.append({"context": context, "endings": endings, "label": 1 + "AB".index(label)})
    return rows


def bool_q(data):
    rows = json_lines(data / "superglue_boolq/val.jsonl.gz")
    return [
        {"question": row["question"], "title": title, "passage": passage, "answer": row["label"]}
        for row in rows
        for title, _, passage in [row["passage"].partition(" -- ")]
    ]


def multirc(data):
    return [
        {
            "paragraph": row["passage"]["text"],
            "question": question["question"],
            "answer": answer["text"],
            "label": answer["label"],
            "idx": {"paragraph": row["idx"], "question": question["idx"], "answer": answer["idx"]},
        }
        for row in json_lines(data / "superglue_multirc/val.jsonl.gz")
        for question in row["passage"]["questions"]
        for answer in question["answers"]
    ]


def arc(data, *, task):
    rows = []
    for text, label in instances(data, task):
        question, texts = with_letters(text)
        choices = {"text": texts, "label": list(range(len(texts)))}
        rows.append({"question": question, "choices": choices, "answerKey": "ABCDE".index(label)})
    return rows


def cosmos_qa(data):
    rows = csv.DictReader(io.StringIO(text_of(data / "cosmosqa/valid.csv.gz")))
    return [{**row, "label": int(row["label"])} for row in rows]


def record(data):
    rows = []
    for file in ("fewglue_train", "fewglue_dev32"):
        for row in json_lines(data / f"superglue_record/{file}.jsonl.gz"):
            text = row["passage"]["text"]
            entities = sorted({text[e["start"] : e["end"] + 1] for e in row["passage"]["entities"]})
            for query in row["qas"]:
                answers = sorted({answer["text"] for answer in query["answers"]})
                rows.append({"passage": text, "query": query["query"], "entities": entities, "answers": answers})
    return rows


REAL_ROWS = {
    "anli_r1": lambda data: anli(data, task="nli/task1385_anli_r1_entailment"),
    "anli_r2": lambda data: anli(data, task="nli/task1386_anli_r2_entailment"),
    "anli_r3": lambda data: anli(data, task="nli/task1387_anli_r3_entailment"),
    "cb": cb,
    "rte": rte,
    "snli": snli,
    "wnli": wnli,
    "glue_mrpc": mrpc,
    "paws_wiki": paws,
    "stsb": stsb,
    "sentiment140": sentiment140,
    "sst2": sst2,
    "yelp_polarity_reviews": yelp,
    "wic": wic,
    "cola": cola,
    "trec": trec,
    "definite_pronoun_resolution": dpr,
    "winogrande": winogrande,
    "wsc": wsc,
    "wsc273": wsc273,
    "copa": copa,
    "piqa": piqa,
    "story_cloze": story_cloze,
    "bool_q": bool_q,
    "multirc": multirc,
    "arc_challenge": lambda data: arc(data, task="closed_book_qa/task229_arc_answer_generation_hard"),
    "arc_easy": lambda data: arc(data, task="closed_book_qa/task228_arc_answer_generation_easy"),
    "cosmos_qa": cosmos_qa,
    "record": record,
}
