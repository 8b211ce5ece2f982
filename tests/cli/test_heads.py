"""Each head learns a small task by its shipped YAML, and what it learned is kept, resumed and used."""

import json
import random
import string
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split

from gau_alpha import AttentionMethod, GAUAlphaConfig, GAUAlphaFineTuning, GAUAlphaForMaskedLM
from gau_alpha.cli import main
from gau_alpha.finetuning import GAUAlphaForQuestionAnswering, GAUAlphaForSequenceClassification
from gau_alpha.scaling import InfoScale
from gau_alpha.similarity import CosScale

METHOD = AttentionMethod(CosScale(8.0), InfoScale(16))


def letters(low, high):
    return random.choices("abcdefgh", k=random.randint(low, high))


def sequence_record():
    """An x makes it positive, a y negative, wherever it stands."""
    label = random.choice(["negative", "positive"])
    text = letters(3, 12)
    text.insert(random.randint(0, len(text)), "x" if label == "positive" else "y")
    return {"text": "".join(text), "label": label}


def token_record():
    """A word that starts with x begins something, one with y goes on with it."""
    labels = random.choices("OOBI", k=random.randint(3, 8))
    first = {"O": "", "B": "x", "I": "y"}
    return {"text": [first[label] + "".join(letters(1, 3)) for label in labels], "label": labels}


def choice_record():
    """Right is the choice with the x; there are two or three."""
    choices = ["".join(letters(2, 5)) for _ in range(random.randint(2, 3))]
    label = random.randrange(len(choices))
    choices[label] += "x"
    return {"text": "".join(letters(2, 5)), "text_pair": choices, "label": label}


def question_record():
    """The answer lies between x and y."""
    before, answer, after = ("".join(letters(*size)) for size in ((2, 8), (1, 3), (1, 6)))
    answers = {"text": [f"x{answer}y"], "answer_start": [len(before)]}
    return {"question": "where", "context": f"{before}x{answer}y{after}", "answers": answers}


TASKS = {
    "sequence": (sequence_record, "accuracy"),
    "token": (token_record, "f1"),
    "multiple_choice": (choice_record, "accuracy"),
    "question_answering": (question_record, "exact_match"),
}


@pytest.fixture
def base(tmp_path):
    """A pretrained folder with its tokenizer, where the command is typed."""
    special = ("[PAD]", "[MASK]", "[UNK]", "[CLS]", "[SEP]")
    words = {word: number for number, word in enumerate((*special, *string.ascii_lowercase, " "))}
    tokenizer = Tokenizer(WordLevel(words, "[UNK]"))
    tokenizer.pre_tokenizer = Split(Regex("."), "isolated")
    tokenizer.add_special_tokens(list(special))
    config = GAUAlphaConfig(len(words), 32, 48, 16, 2, initializer_range=0.1, hidden_dropout_prob=0.0)
    GAUAlphaForMaskedLM(config, METHOD).save_pretrained(tmp_path / "base")
    tokenizer.save(str(tmp_path / "base/tokenizer.json"))
    return tmp_path / "base"


def write(path, records):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def task(slow, base, tmp_path, capsys):
    """A function that trains a head by its YAML and returns the run's folder."""

    def fit(name, *more, suffix="jsonl"):
        random.seed(0)
        for part, count in (("train", 256), ("validation", 64)):
            write(tmp_path / f"{part}.{suffix}", [TASKS[name][0]() for _ in range(count)])
        files = ["--data.train.path", f"train.{suffix}", "--data.validation.path", f"validation.{suffix}"]
        quiet = [*QUIET[2:], "--trainer.logger.version", "v"]
        quick = ["--model.optimizer.learning_rate", "1e-2", "--trainer.max_epochs", "12"]
        args = ["fit", "--config", f"{name}.yaml", "--model.init_from", "base", *files, *quiet, *quick, *more]
        assert main(args) == 0, capsys.readouterr().err
        return tmp_path / "runs" / name / "v"

    return fit


def measured(folder, metric):
    """The last value of a metric that the run logged."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return events.Scalars(metric)[-1].value


QUIET = ["--trainer.logger", "false", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_a_head_learns_by_its_yaml(task, name):
    entropy = {"class_path": "callbacks.attention_entropy.AttentionEntropy", "init_args": {"every_n_train_steps": 40}}
    more = [f"--trainer.callbacks+={json.dumps(entropy)}"]
    more += ["--trainer.callbacks+=callbacks.throughput.TrainingThroughput", "--trainer.log_every_n_steps", "10"]
    folder = task(name, *more, suffix="parquet" if name == "token" else "jsonl")
    assert measured(folder, f"validation/{TASKS[name][1]}") > 0.95
    assert measured(folder, "attention/entropy/mean") > 0
    assert measured(folder, "throughput/tokens_per_second") > 0
    assert 0 < measured(folder, "throughput/mfu_of_measured_rate") < 1
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    arguments = saved["hyper_parameters"]
    # sizes and method are those of what it started from; the length that the method was made for is the data's
    assert arguments["config"]["hidden_size"] == 32
    assert arguments["method"]["similarity"]["init_args"] == {"scale": 8.0}
    assert arguments["method"]["scaling"]["init_args"]["train_length"] == 128
    assert json.loads((folder / "huggingface/config.json").read_text())["head"] == arguments["head"]
    trained = GAUAlphaFineTuning.load_from_checkpoint(folder / "checkpoints/last.ckpt").model
    assert trained.method.describe() == arguments["method"]


def test_from_training_to_a_folder_and_labels_in_a_file(task, tmp_path, capsys):
    folder = task("sequence")
    capsys.readouterr()
    checkpoint = str(folder / "checkpoints/last.ckpt")
    assert main(["validate", "--ckpt_path", checkpoint, *QUIET]) == 0
    assert "validation/accuracy" in capsys.readouterr().out
    # predicted, in the order of the records, for texts without a label
    records = [sequence_record() for _ in range(70)]
    write(tmp_path / "new.jsonl", [{"text": record["text"]} for record in records])
    predict = ["predict", "--ckpt_path", checkpoint, *QUIET, "--data.predict.path", "new.jsonl"]
    assert main([*predict, "--predictions.output", "new_labels.jsonl"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "new_labels.jsonl").read_text().splitlines()]
    assert [row["row"] for row in rows] == list(range(70))
    right = sum(row["label"] == record["label"] for row, record in zip(rows, records, strict=True))
    assert right >= 66
    # the exported folder gives the same, by hand
    model = GAUAlphaForSequenceClassification.from_pretrained(folder / "huggingface")
    ids = [5 + string.ascii_lowercase.index(letter) for letter in records[0]["text"]]
    with torch.no_grad():
        probabilities = model(torch.tensor([[3, *ids, 4]])).softmax(-1)[0]
    assert model.labels[probabilities.argmax()] == rows[0]["label"]
    assert probabilities.max().item() == pytest.approx(rows[0]["probability"], abs=1e-5)
    card = (folder / "huggingface/README.md").read_text()
    assert "text-classification" in card
    assert "from gau_alpha.finetuning import GAUAlphaForSequenceClassification" in card
    # to a folder and back, nothing is lost
    for source, target in ((checkpoint, "there"), ("there", "back.ckpt")):
        assert main(["convert", source, target]) == 0
    before, after = (torch.load(path, weights_only=True) for path in (checkpoint, "back.ckpt"))
    assert before["hyper_parameters"] == after["hyper_parameters"]
    assert list(before["state_dict"]) == list(after["state_dict"])
    assert all(torch.equal(x, after["state_dict"][name]) for name, x in before["state_dict"].items())
    assert main(["convert", "there", "lean.ckpt", "--weights_only"]) == 0
    lean = GAUAlphaFineTuning.load_from_checkpoint("lean.ckpt")
    assert lean.model.labels == ("negative", "positive")
    # such a checkpoint hides no tokens
    assert main(["extrapolate", "--ckpt_path", checkpoint]) == 2
    assert "a head for another task" in capsys.readouterr().err
    assert main(["fill-mask", "--model", checkpoint, "a[MASK]"]) == 2
    assert "GAUAlphaForSequenceClassification" in capsys.readouterr().err


def test_a_run_goes_on_without_the_weights_it_started_from(task, base, tmp_path, capsys):
    folder = task("sequence", "--trainer.max_epochs", "2", "--model.schedule.final", "0.1")  # a rate to go on with
    for name in ("config.json", "model.safetensors"):  # all but the tokenizer, which the texts still need
        (base / name).unlink()
    checkpoint = str(folder / "checkpoints/last.ckpt")
    saved = ["--config", str(folder / "config.yaml")]
    assert main(["validate", "--ckpt_path", checkpoint, *QUIET]) == 0
    assert main(["validate", *saved, "--ckpt_path", checkpoint, *QUIET]) == 0
    assert main(["fit", *saved, "--ckpt_path", checkpoint, "--trainer.max_epochs", "3"]) == 0
    assert torch.load(checkpoint, weights_only=True)["epoch"] >= 1
    capsys.readouterr()
    assert main(["fit", *saved]) == 2  # a new run does need them
    assert "config.json" in capsys.readouterr().err


def test_training_rows_are_cut_and_others_are_not(task, recwarn):
    task("question_answering", "--data.train_length", "20", "--trainer.max_epochs", "1")
    said = [str(one.message) for one in recwarn]
    assert [line for line in said if line.startswith("train: left out") and "records: the answer is cut off" in line]
    assert [line for line in said if line.startswith("train: ") and "rows were cut to 20 tokens" in line]
    assert not [line for line in said if line.startswith("validation")]


def test_answers_as_characters(task, tmp_path):
    folder = task("question_answering")
    record = question_record()
    del record["answers"]
    write(tmp_path / "new.jsonl", [record])
    args = ["predict", "--ckpt_path", str(folder / "checkpoints/last.ckpt"), *QUIET, "--data.predict.path", "new.jsonl"]
    assert main([*args, "--predictions.output", "answers.jsonl"]) == 0
    row = json.loads((tmp_path / "answers.jsonl").read_text())
    answer = record["context"][row["start"] : row["stop"]]
    assert (answer[0], answer[-1]) == ("x", "y")
    assert GAUAlphaForQuestionAnswering.from_pretrained(folder / "huggingface").longest_answer == 64


@pytest.mark.slow
def test_two_processes_train_and_count_as_one(base, tmp_path):
    """Records that leave one of them without a row in the last batch."""
    random.seed(0)
    write(tmp_path / "train.jsonl", [sequence_record() for _ in range(33)])
    write(tmp_path / "validation.jsonl", [sequence_record() for _ in range(17)])
    fit = ["fit", "--config", "sequence.yaml", "--model.init_from", "base", *QUIET[2:], "--trainer.max_epochs", "2"]
    fit += ["--model.head.classifier_dropout", "0", "--model.config.attention_probs_dropout_prob", "0"]
    found = []
    for devices, batch_size in (("1", "16"), ("2", "8")):
        processes = ["--trainer.devices", devices, "--trainer.strategy", "ddp" if devices == "2" else "auto"]
        processes += ["--trainer.logger.version", f"with{devices}", "--data.batch_size", batch_size]
        command = [sys.executable, "-m", "gau_alpha.cli", *fit, *processes]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        folder = tmp_path / "runs/sequence" / f"with{devices}"
        weights = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        found.append((weights, [measured(folder, f"validation/{name}") for name in ("loss", "accuracy", "f1")]))
    (one, values), (two, others) = found
    torch.testing.assert_close(two, one, atol=2e-5, rtol=0)
    assert others == pytest.approx(values, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--model.init_from", "nowhere"], ["nowhere", "no such folder"]),
        (["--data.examples.labels", "[good, bad]"], ["train.jsonl, record 0", "good, bad"]),
        (["--data.examples.text", "body"], ["record 0", "no column 'body'", "label, text"]),
        (["--data.train.path", "missing.jsonl"], ["missing.jsonl"]),
        (["--model.head.pooling", "max"], ["first, mean"]),
        (["--model.config.hidden_size", "64"], ["hidden_size is 32 there and 64 here"]),
        (["--model.head", "gau_alpha.finetuning.GAUAlphaForQuestionAnswering"], ["is a span", "negative"]),
    ],
)
def test_mistakes(base, tmp_path, capsys, more, words):
    write(tmp_path / "train.jsonl", [sequence_record() for _ in range(4)])
    args = ["fit", "--config", "sequence.yaml", "--model.init_from", "base", "--data.validation", "null", *more]
    assert main(args) == 2
    error = capsys.readouterr().err
    assert not [word for word in words if word not in error], error
