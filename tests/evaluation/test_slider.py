"""The slider of the report in headless Chromium, where there is one."""

from __future__ import annotations

import numpy as np
import pytest
from chromium import PROGRAM, Chromium

from paretohqd_jax.evaluation.answers import Answer, Sample
from paretohqd_jax.evaluation.report import write_report

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium")
NUM_PROMPTS = 170  # times 1 + 2 * 3 models: 1,190 responses
MOVE = """
new Promise(done => {
  const slider = document.getElementById('position'), start = performance.now();
  slider.value = %d;
  slider.dispatchEvent(new Event('input'));
  requestAnimationFrame(() => setTimeout(() => {
    document.body.getBoundingClientRect();  // lays out what has changed
    done(performance.now() - start);
  }));
})
"""
SHOWN = "[...document.querySelectorAll('[data-prompt] .text')].map(text => text.textContent)"


def answer(prompt, stage, model):
    text = f"Answer {prompt} of stage {stage}, model {model}. " + "word " * 100
    return Answer(text.strip(), [stage + model, -1.0], "loop" if prompt == 0 else "")


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    base = Answer("base </script><script>alert(1)</script>", [0.5, 0.0])
    samples = [
        Sample(
            f"Prompt {prompt}?",
            base,
            {f"stage{s}": [answer(prompt, s, model) for model in range(3)] for s in (1, 2)},
        )
        for prompt in range(NUM_PROMPTS)
    ]
    write_report(path, run.evaluation, run.rewards, samples, {})
    return path


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    browser = Chromium(tmp_path_factory.mktemp("profile"), page)
    yield browser
    browser.close()


def test_every_position_shows_its_answers_to_every_prompt(browser):
    assert browser.evaluate("document.getElementById('slider').hidden") is False
    for model in (0, 2, 1):
        browser.evaluate(MOVE % model)
        assert browser.evaluate(SHOWN) == [answer(p, 2, model).response for p in range(NUM_PROMPTS)]
        weights = ["brief 0.00, positivity 1.00", "brief 0.50, positivity 0.50",
                   "brief 1.00, positivity 0.00"][model]  # fmt: skip
        assert browser.evaluate("document.getElementById('weights').textContent") == weights
        assert browser.evaluate("document.getElementById('position').ariaValueText") == weights
    rewards = (
        "[...document.querySelectorAll('[data-prompt=\"3\"] .reward')].map(r => r.textContent)"
    )
    assert browser.evaluate(rewards) == ["brief 3.00 +2.50", "positivity \u22121.00 \u22121.00"]
    flags = (
        "[...document.querySelectorAll('[data-prompt] .flag')].slice(0, 2).map(f => f.textContent)"
    )
    assert browser.evaluate(flags) == ["collapsed: loop", ""]


def test_the_other_stage(browser):
    browser.evaluate(MOVE % 0)
    browser.evaluate("document.querySelector('input[value=stage1]').click()")
    browser.evaluate(MOVE % 0)
    assert browser.evaluate(SHOWN)[5] == answer(5, 1, 0).response
    title = browser.evaluate("document.querySelector('[data-prompt] .title').textContent")
    assert title == "stage 1: brief 0.00, positivity 1.00"
    browser.evaluate("document.querySelector('input[value=stage2]').click()")


def test_the_keyboard_moves_the_slider(browser):
    browser.evaluate(MOVE % 0)
    browser.evaluate("document.getElementById('position').focus()")
    key = {"key": "ArrowRight", "code": "ArrowRight", "windowsVirtualKeyCode": 39}
    browser.send("Input.dispatchKeyEvent", type="keyDown", **key)
    browser.send("Input.dispatchKeyEvent", type="keyUp", **key)
    assert browser.evaluate("document.getElementById('position').value") == "1"
    browser.evaluate(MOVE % 1)
    assert browser.evaluate(SHOWN)[7] == answer(7, 2, 1).response


def test_a_move_lays_the_page_out_once(browser):
    def layouts():
        metrics = browser.send("Performance.getMetrics")["metrics"]
        return next(each["value"] for each in metrics if each["name"] == "LayoutCount")

    browser.send("Performance.enable")
    before = layouts()
    for number in range(12):
        browser.evaluate(MOVE % (number % 3))
    assert layouts() - before <= 2 * 12  # one more where a frame falls between


@pytest.mark.slow
def test_a_thousand_responses_stay_fluent(browser):
    milliseconds = [browser.evaluate(MOVE % (number % 3)) for number in range(12)]
    assert np.median(milliseconds) < 250, milliseconds  # a shared core; a frame or two otherwise


def test_a_phone_shows_it_without_scrolling_sideways(page, tmp_path):
    phone = Chromium(tmp_path / "profile", page, width=360, height=740)
    try:
        assert phone.evaluate("document.documentElement.scrollWidth") <= 360
        assert phone.complaints == []
    finally:
        phone.close()


def test_tables_fit_a_small_laptop(run_of_three_objectives, tmp_path):
    run, path = run_of_three_objectives, tmp_path / "report.html"
    write_report(path, run.evaluation, run.rewards, [], {})
    laptop = Chromium(tmp_path / "profile", path, width=1100)
    wider = "[...document.querySelectorAll('.scroll')].map(e => e.scrollWidth - e.clientWidth)"
    try:
        assert max(laptop.evaluate(wider)) <= 0
    finally:
        laptop.close()


def test_print_shows_the_answers_and_not_the_slider(browser):
    browser.send("Emulation.setEmulatedMedia", media="print")
    style = "getComputedStyle(document.querySelector('%s')).display"
    assert browser.evaluate(style % "#position") == "none"
    assert browser.evaluate(style % "[data-prompt]") != "none"
    browser.send("Emulation.setEmulatedMedia", media="")


def test_nothing_is_logged_and_nothing_asked_of_a_network(browser):
    assert browser.complaints == []
