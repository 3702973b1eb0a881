"""Pictures: they draw what they say, label their axes, and leave the global state alone."""

import matplotlib.pyplot as plt
import pytest
import torch
from torch.distributions import Normal

import minflow as mf
from minflow import plot


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def affine_flow(scale):
    flow = mf.Flow(mf.Elementwise(1, mf.Affine()))
    with torch.no_grad():
        flow.transform.params[1] = 5 * torch.atanh(torch.tensor(scale).log() / 5)
    return flow


@pytest.mark.parametrize("interval", [(0.0, 1.0), (-0.4, 0.5), (1.0, 0.0)])
def test_pushforward_prints_equal_masses_and_the_peaks(interval):
    figure = plot.pushforward(affine_flow(2.0), interval)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    normal = Normal(0.0, 1.0)
    mass = abs(normal.cdf(torch.tensor(interval[1])) - normal.cdf(torch.tensor(interval[0])))
    assert texts == [
        f"z: mass {mass:.2f}\n    peak 0.399",
        f"x: mass {mass:.2f}\n    peak 0.199",
    ]


def test_pushforward_draws_a_falling_map_too():
    class Falls(mf.Transform):
        def forward(self, z, context=None):
            return -z, z.new_zeros(z.shape[:-1])

        def inverse(self, x, context=None):
            return -x, x.new_zeros(x.shape[:-1])

    figure = plot.pushforward(mf.Flow(Falls(1)), (0.0, 1.0))
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert all("mass 0.34" in text for text in texts)


def test_pushforward_draws_other_bases_and_float64():
    base = torch.distributions.Uniform(torch.zeros(1), torch.ones(1))
    flow = mf.Flow(mf.Elementwise(1, mf.Logit()), base).double()
    figure = plot.pushforward(flow, (0.25, 0.75))
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts == ["z: mass 0.50\n    peak 1.000", "x: mass 0.50\n    peak 0.250"]


def test_pushforward_wants_one_dimension():
    with pytest.raises(ValueError, match="got dim 2"):
        plot.pushforward(mf.Flow(mf.TriangularAffine(2)), (0.0, 1.0))


@pytest.mark.parametrize(
    ("draw", "labels"),
    [
        (lambda: plot.samples(torch.randn(9, 2)), ("$x_1$", "$x_2$")),
        (lambda: plot.grid(mf.TriangularAffine(2)), ("$x_1$", "$x_2$")),
        (
            lambda: plot.density(mf.data.TwoMoons(0.3).log_prob, (-2, 3, -2, 2), points=9),
            ("$x_1$", "$x_2$"),
        ),
        (
            lambda: plot.history(mf.History([3.0, 2.0, 1.5] * 10), floor=1.0),
            ("step", "mean $-\\log q$ (nats)"),
        ),
        (lambda: plot.curve(torch.arange(3.0), torch.ones(3), plot.DATA, "a"), ("", "density")),
    ],
)
def test_each_picture_labels_its_axes(draw, labels):
    axes = draw()
    assert (axes.get_xlabel(), axes.get_ylabel()) == labels


def test_a_grid_shows_where_the_map_puts_the_base():
    layer = mf.TriangularAffine(2)
    with torch.no_grad():
        layer.shift.copy_(torch.tensor([10.0, 0.0]))
    lines = plot.grid(layer, reach=1.0, lines=3).lines
    assert len(lines) == 6
    assert {round(float(x)) for line in lines for x in line.get_xdata()} == {9, 10, 11}


def test_a_history_shows_every_step_and_the_floor():
    axes = plot.history(mf.History([3.0, 2.0, 1.0]), floor=0.5)
    each, floor = axes.lines
    assert each.get_ydata().tolist() == [3.0, 2.0, 1.0] and floor.get_ydata() == [0.5, 0.5]


def test_a_history_shows_held_out_scores_the_best_and_no_skipped_step():
    record = mf.History([3.0, float("nan"), 1.0], [(2, 2.5), (3, 2.75)], [1], best_step=2)
    each, held_out, best = plot.history(record).lines
    assert each.get_xdata().tolist() == [1, 3] and each.get_ydata().tolist() == [3.0, 1.0]
    assert list(held_out.get_xdata()) == [2, 3] and list(held_out.get_ydata()) == [2.5, 2.75]
    assert (best.get_xdata(), best.get_ydata()) == ([2], [2.5])
