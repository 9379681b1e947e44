"""A few rows of real datasets in the shape that promptsource's templates were written for, that of Hugging Face's sets.

Plain Python only: the golden file is made in an environment that need not have this package.
"""

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]

MADE_UP = {
    "super_glue/rte": {
        "premise": "Left ||| right, " + "and a long way " * 200 + "||| to go.",
        "hypothesis": "||| " + "word " * 410 + "{{ 1 + 1 }}",
        "label": 1,
        "idx": 0,
    },
    "commonsense_qa": {
        "question": "A|||B?",
        "choices": {"label": ["A", "B", "C", "D", "E"], "text": ["a", " b ", "", "x" * 3000, "e\n\nf"]},
        "answerKey": "D",
    },
}
"""In place of the last row: separators within fields, braces, texts that are cut, white space."""
_COARSE = ("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM")


def rows(data: Path) -> dict[str, list[Row]]:
    """Returns the first row, the longest and the last of each dataset."""
    return {dataset: _three(dataset, list(make(data))) for dataset, make in DATASETS.items()}


def _three(dataset: str, found: list[Row]) -> list[Row]:
    longest = max(found, key=lambda row: len(json.dumps(row)))
    return [found[0], longest, MADE_UP.get(dataset, found[-1])]


def _text(path: Path, encoding: str = "utf-8") -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode(encoding)


def _jsonl(path: Path) -> Iterator[Row]:
    yield from (json.loads(line) for line in _text(path).splitlines() if line.strip())


def _tsv(path: Path, *columns: str, skip: int = 0) -> Iterator[Row]:
    for line in _text(path).splitlines()[skip:]:
        yield dict(zip(columns, line.split("\t"), strict=False))


def _csv(path: Path) -> Iterator[Row]:
    yield from csv.DictReader(io.StringIO(_text(path)))


def _classes(found: Iterable[Row], *names: Any) -> Iterator[Row]:
    for row in found:
        yield {**row, "label": names.index(row["label"])}


def _numbers(found: Iterable[Row], kind: type = int) -> Iterator[Row]:
    for row in found:
        yield {**row, "label": kind(row["label"])}


def _wsc(data: Path) -> Iterator[Row]:
    for row in _classes(_jsonl(data / "superglue_wsc" / "val.jsonl.gz"), False, True):
        yield {**row.pop("target"), **row}


def _multirc(data: Path) -> Iterator[Row]:
    for row in _jsonl(data / "superglue_multirc" / "val.jsonl.gz"):
        for question in row["passage"]["questions"]:
            for answer in question["answers"]:
                yield {
                    "paragraph": row["passage"]["text"],
                    "question": question["question"],
                    "answer": answer["text"],
                    "label": answer["label"],
                }


def _record(data: Path) -> Iterator[Row]:
    for row in _jsonl(data / "superglue_record" / "fewglue_train.jsonl.gz"):
        text = row["passage"]["text"]
        entities = dict.fromkeys(text[at["start"] : at["end"] + 1] for at in row["passage"]["entities"])
        for asked in row["qas"]:
            answers = dict.fromkeys(answer["text"] for answer in asked["answers"])
            yield {"passage": text, "query": asked["query"], "entities": list(entities), "answers": list(answers)}


def _trec(data: Path) -> Iterator[Row]:
    lines = _text(data / "trec" / "TREC.train.txt.gz", "latin-1").split("\n")
    labeled = [line.split(" ", 1) for line in lines if line]
    fine = sorted({label for label, _ in labeled}, key=lambda label: (_COARSE.index(label.split(":")[0]), label))
    for label, text in labeled:
        yield {"text": text, "coarse_label": _COARSE.index(label.split(":")[0]), "fine_label": fine.index(label)}


def _piqa(data: Path) -> Iterator[Row]:
    labels = _text(data / "piqa" / "valid-labels.lst").split()
    for row, label in zip(_jsonl(data / "piqa" / "valid.jsonl.gz"), labels, strict=True):
        yield {**row, "label": int(label)}


def _commonsense_qa(data: Path) -> Iterator[Row]:
    for row in _jsonl(data / "commonsenseqa" / "dev_rand_split.jsonl.gz"):
        choices = row["question"]["choices"]
        yield {
            "question": row["question"]["stem"],
            "choices": {name: [choice[name] for choice in choices] for name in ("label", "text")},
            "answerKey": row["answerKey"],
        }


def _dbpedia(data: Path) -> Iterator[Row]:
    names = json.loads(_text(data / "dbpedia" / "labels.json"))
    for row in json.loads(_text(data / "dbpedia" / "test.json.gz")):
        title, _, content = row["sentence"].removeprefix("Title: ").partition("\nText: ")
        yield {"title": title, "content": content, "label": names.index(row["label"])}


def _wsc273(data: Path) -> Iterator[Row]:
    lines = [line for line in _text(data / "wsc273" / "wsc273.txt").splitlines() if line.strip()]
    for sentence, pronoun, candidates, answer in zip(*[iter(lines)] * 4, strict=True):
        options = [candidate.strip() for candidate in candidates.split(",")]
        yield {
            "text": sentence.replace("[MASK]", pronoun),
            "pronoun": pronoun,
            "options": options,
            "label": options.index(answer.strip()),
        }


def _sst2(data: Path) -> Iterator[Row]:
    for line in _text(data / "sst2" / "stsa.binary.dev.txt").splitlines():
        yield {"label": int(line[0]), "sentence": line[2:]}


def _e2e(data: Path) -> Iterator[Row]:
    for row in _csv(data / "e2e_nlg" / "devset.csv.gz"):
        yield {"meaning_representation": row["mr"], "human_reference": row["ref"]}


DATASETS: dict[str, Callable[[Path], Iterable[Row]]] = {
    "super_glue/boolq": lambda data: _classes(_jsonl(data / "superglue_boolq" / "val.jsonl.gz"), False, True),
    "super_glue/cb": lambda data: _classes(
        _jsonl(data / "superglue_cb" / "val.jsonl.gz"), "entailment", "contradiction", "neutral"
    ),
    "super_glue/copa": lambda data: _jsonl(data / "superglue_copa" / "val.jsonl"),
    "super_glue/multirc": _multirc,
    "super_glue/record": _record,
    "super_glue/rte": lambda data: _classes(
        _jsonl(data / "superglue_rte" / "val.jsonl.gz"), "entailment", "not_entailment"
    ),
    "super_glue/wsc.fixed": _wsc,
    "glue/cola": lambda data: _numbers(_tsv(data / "glue_cola" / "in_domain_dev.tsv.gz", "", "label", "", "sentence")),
    "glue/rte": lambda data: _classes(
        _tsv(data / "glue_rte" / "dev.tsv.gz", "idx", "sentence1", "sentence2", "label", skip=1),
        "entailment",
        "not_entailment",
    ),
    "glue/sst2": _sst2,
    "glue/stsb": lambda data: _numbers(
        _tsv(data / "glue_stsb" / "sts-dev.csv.gz", "", "", "", "", "label", "sentence1", "sentence2"), float
    ),
    "glue/wnli": lambda data: _numbers(
        _tsv(data / "glue_wnli" / "dev.tsv", "idx", "sentence1", "sentence2", "label", skip=1)
    ),
    "trec": _trec,
    "piqa": _piqa,
    "cosmos_qa": lambda data: _numbers(_csv(data / "cosmosqa" / "valid.csv.gz")),
    "commonsense_qa": _commonsense_qa,
    "aqua_rat/raw": lambda data: _jsonl(data / "aqua" / "dev.jsonl.gz"),
    "nq_open": lambda data: _jsonl(data / "nq_open" / "NQ-open.dev.jsonl.gz"),
    "dbpedia_14": _dbpedia,
    "winograd_wsc/wsc273": _wsc273,
    "e2e_nlg_cleaned": _e2e,
}
