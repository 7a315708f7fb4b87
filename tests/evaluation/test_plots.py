from __future__ import annotations

import io
import itertools
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from paretohqd_jax.evaluation import plots
from paretohqd_jax.evaluation.colours import model_colours, objective_hues, preference_colours
from paretohqd_jax.evaluation.point_labels import label_points


def panels_of(run):
    selection = plots.selection_panels(run.objectives, run.preferences, run.rewards, run.selection)
    return selection, plots.model_panels(run.evaluation, run.rewards)


def lines(panel):
    """What a panel draws: `[(xy data [num_points, 2], line)]`."""
    axes = Figure().add_subplot()
    if finish := panel(axes):
        axes.figure.draw_without_rendering()
        finish()
    return axes, [(line.get_xydata(), line) for line in axes.get_lines()]


def has(drawn, points, **style):
    """Whether some line has exactly these points and this style."""
    return any(
        xy.shape == np.shape(points)
        and np.allclose(xy, points)
        and all(getattr(line, f"get_{name}")() == value for name, value in style.items())
        for xy, line in drawn
    )


def test_selection_shows_data_pool_rays_rows_and_ideal_point(run):
    selection = run.selection
    _, drawn = lines(panels_of(run)[0][0])
    assert has(drawn, run.rewards, color=plots.CLOUD)
    assert has(drawn, run.rewards[np.asarray(selection.ranks) >= 0], markerfacecolor="white")
    low, high = selection.low, selection.high
    assert has(drawn, [high])
    # Weights (0, 1), (1/2, 1/2), (1, 0): along the top, the diagonal, down the right side.
    assert has(drawn, [high, (low[0], high[1])])
    assert has(drawn, [high, low])
    assert has(drawn, [high, (high[0], low[1])])
    for row_ids in selection.row_ids:
        assert has(drawn, run.rewards[row_ids])


def test_models_show_both_fronts_in_order_of_weight_and_the_base_model(run):
    _, drawn = lines(panels_of(run)[1][0])
    for stage in ("stage1", "stage2"):
        models = run.evaluation["fronts"][stage]["models"]
        assert has(drawn, [model["mean_rewards"] for model in models], color=plots.SOFT_INK)
    assert has(drawn, [run.evaluation["base"]["mean_rewards"]], marker="*")


def test_joined_in_order_of_weight_even_if_preferences_come_in_another(run):
    order = [2, 0, 1]
    fronts = {
        stage: front | {"models": [front["models"][index] for index in order]}
        for stage, front in run.evaluation["fronts"].items()
    }
    shuffled = run.evaluation | {"fronts": fronts}
    _, drawn = lines(plots.model_panels(shuffled, run.rewards)[0])
    models = run.evaluation["fronts"]["stage2"]["models"]
    assert has(drawn, [model["mean_rewards"] for model in models], color=plots.SOFT_INK)


def test_models_without_preferences_bear_their_labels(run):
    named = [
        model | {"label": f"b={number}", "preference": None}
        for number, model in enumerate(run.evaluation["fronts"]["stage2"]["models"])
    ]
    front = run.evaluation["fronts"]["stage2"] | {"models": named}
    evaluation = run.evaluation | {"fronts": {"thresholds": front}}
    axes, drawn = lines(plots.model_panels(evaluation, run.rewards)[0])
    assert sorted(text.get_text() for text in axes.texts) == ["b=0", "b=1", "b=2"]
    assert not has(drawn, [model["mean_rewards"] for model in named])  # no curve through them
    colours = model_colours([None, (0.5, 0.5), *[None] * 11])
    assert len(np.unique(colours, axis=0)) == 13 and colours.min() >= 0 and colours.max() <= 1


def test_the_picture_is_zoomed_to_all_models(run):
    axes, _ = lines(panels_of(run)[1][0])
    fronts = run.evaluation["fronts"].values()
    models = [run.evaluation["base"], *(model for front in fronts for model in front["models"])]
    points = np.array([model["mean_rewards"] for model in models])
    bounds = axes.get_xlim(), axes.get_ylim()
    for (low, high), means, cloud in zip(bounds, points.T, run.rewards.T, strict=True):
        assert low < means.min() and means.max() < high and high - low < np.ptp(cloud)


def test_bars_are_the_intervals(run):
    models = run.evaluation["fronts"]["stage2"]["models"]
    means, bars = plots.points_with_bars(models, (1, 0))
    for model, mean, bar in zip(models, means, bars.swapaxes(0, 1), strict=True):
        np.testing.assert_allclose(mean, model["mean_rewards"][::-1])
        np.testing.assert_allclose(mean - bar[0], model["interval"][0][::-1])
        np.testing.assert_allclose(mean + bar[1], model["interval"][1][::-1])


def test_three_objectives_have_a_panel_per_pair(run_of_three_objectives):
    selection, models = panels_of(run_of_three_objectives)
    labels = [(axes.get_xlabel(), axes.get_ylabel()) for axes, _ in map(lines, selection + models)]
    names = [tuple(label.split(" ")[0] for label in pair) for pair in labels]
    assert names == 2 * [("helpful", "harmless"), ("helpful", "humour"), ("harmless", "humour")]
    # Balanced weights of three: the ray runs through the whole box in each pair.
    low, high = run_of_three_objectives.selection.low, run_of_three_objectives.selection.high
    rays = plots._rays(np.array([(1 / 3, 1 / 3, 1 / 3), (0.5, 0.5, 0.0)]), low, high)
    np.testing.assert_allclose(rays[0], [high, low])
    np.testing.assert_allclose(rays[1], [high, [*(high - (high - low) / 2)[:2], low[2]]])


def test_many_rows_are_thinned_but_pool_and_selection_are_not(run):
    rewards = np.concatenate([run.rewards, np.zeros((50_000, 2))])
    ranks = np.concatenate([run.selection.ranks, np.full(50_000, -1)])
    selection = run.selection._replace(ranks=ranks)
    panel = plots.selection_panels(run.objectives, run.preferences, rewards, selection)[0]
    _, drawn = lines(panel)
    cloud = max(len(xy) for xy, _ in drawn)
    assert 10_000 < cloud <= plots.MAX_CLOUD_POINTS
    assert has(drawn, rewards[ranks >= 0], markerfacecolor="white")


def test_png_is_whole_and_the_same_bytes_every_time(run, tmp_path):
    for name in ("a.png", "b.png"):
        selection, models = panels_of(run)
        plots.plot_panels(tmp_path / name, selection + models, 2)
    first, second = ((tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
    assert first == second
    assert Image.open(io.BytesIO(first)).size == (1872, 828)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


@pytest.mark.parametrize("suffix", [".pdf", ".svg"])
def test_vector_pictures_are_the_same_bytes_every_time(run, tmp_path, suffix):
    for name in ("a", "b"):
        plots.plot_panels(tmp_path / f"{name}{suffix}", panels_of(run)[1], 2)
    first, second = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("a", "b"))
    assert first == second and first.startswith((b"%PDF", b"<?xml"))


def test_points_bear_their_preferences_and_bars_are_explained(run):
    axes, _ = lines(panels_of(run)[1][0])
    assert {text.get_text() for text in axes.texts} == {"0/1", "0.5/0.5", "1/0"}
    assert axes.get_title() == "Mean rewards, bars: 95% intervals"


def test_labels_overlap_neither_each_other_nor_points():
    axes = Figure().add_subplot()
    points = np.random.default_rng(0).normal(0, 0.05, (30, 2))
    points[0] = 2, 2
    axes.plot(*points.T, "o")
    axes.figure.draw_without_rendering()
    label_points(axes, points, [f"label {number}" for number in range(30)])
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # without its line
    assert 1 < len(boxes) < 30  # most are in one heap
    assert "label 0" in {text.get_text() for text in axes.texts}
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    for box in boxes:
        assert not any(box.contains(*point) for point in axes.transData.transform(points))


def test_three_objectives_have_a_key_of_their_colours(run_of_three_objectives):
    for panel in sum(panels_of(run_of_three_objectives), []):
        axes, _ = lines(panel)
        [key] = axes.child_axes
        assert [text.get_text() for text in key.texts] == ["helpful", "harmless", "humour"]
        colours = key.images[0].get_array()
        np.testing.assert_allclose(colours[0, 0, :3], objective_hues(3)[0])
        assert colours[-1, 0, 3] == 0  # no preference lies there


def test_selection_alone_and_a_name_with_dollars(run, tmp_path):
    names = ["$\\nosuchcommand$", "$x"]
    panels = plots.selection_panels(names, run.preferences, run.rewards, run.selection)
    plots.plot_panels(tmp_path / "a.png", panels, 2)
    assert Image.open(tmp_path / "a.png").size == (936, 828)


def test_long_names_of_objectives_fit_on_the_axes(run):
    names = ["my_company.alignment.rewards:helpfulness", "harmlessness_of_all_the_replies"]
    panel = plots.selection_panels(names, run.preferences, run.rewards, run.selection)[0]
    axes, _ = lines(panel)
    assert axes.get_xlabel().startswith("helpfulness (")
    assert axes.get_ylabel().startswith("harmlessness_of_all_the\u2026 (")


@pytest.mark.parametrize("num_objectives", [2, 3, 7])
def test_colours_are_distinct_and_valid(num_objectives):
    corners = np.eye(num_objectives)
    colours = preference_colours(np.concatenate([corners, [corners.mean(axis=0)]]))
    assert colours.shape == (num_objectives + 1, 3)
    assert colours.min() >= 0 and colours.max() <= 1
    if num_objectives <= 6:
        assert len(np.unique(colours.round(3), axis=0)) == num_objectives + 1


def test_two_objectives_have_a_ramp_of_rising_lightness():
    weights = np.linspace(0, 1, 11)
    colours = preference_colours(np.stack([weights, 1 - weights], axis=1))
    lightness = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > 0.02).all()


@pytest.mark.parametrize(
    ("stage", "shown"), [("stage1", "stage 1"), ("stage10", "stage 10"), ("soup", "soup")]
)
def test_title(stage, shown):
    assert plots.title(stage) == shown


def test_importing_the_package_loads_no_matplotlib():
    code = "import sys, paretohqd_jax.evaluation.report as r; print('matplotlib' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
