"""fit: it reaches a known truth, repeats itself, and loses nothing on bad input."""

import math
import re
from dataclasses import replace

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import minflow as mf
from minflow.batches import Rows
from minflow.run import Plan, Run


def affine_flow(dim=1):
    return mf.Flow(mf.Elementwise(dim, mf.Affine()))


def test_affine_maximum_likelihood_is_mean_and_standard_deviation():
    data = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0)) * 3 - 2
    flow = affine_flow(2)
    mf.fit(flow, data, steps=1500, batch_size=2000, lr=0.05)
    shift, raw = flow.transform.params
    scale = (5 * torch.tanh(raw / 5)).exp()
    torch.testing.assert_close(shift, data.mean(0), atol=0.1, rtol=0)
    torch.testing.assert_close(scale, data.std(0), rtol=0.05, atol=0)


def test_triangular_affine_reaches_the_best_gaussian():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.tensor([[1.0, 0.0], [0.8, 0.5]])
    data = torch.randn(4000, 2, generator=generator) @ mixing.T + 1
    flow = mf.Flow(mf.TriangularAffine(2))
    mf.fit(flow, data, steps=600, lr=0.05)
    best = torch.distributions.MultivariateNormal(data.mean(0), data.T.cov())
    gap = (best.log_prob(data) - flow.log_prob(data)).mean()
    assert gap + 1e-5 >= 0 and gap < 0.01


def test_the_same_seed_gives_the_same_flow_whatever_else_draws():
    data = torch.randn(200, 1, generator=torch.Generator().manual_seed(0))
    runs = []
    for noise in (0, 7):
        torch.manual_seed(noise)
        flow = affine_flow()
        history = mf.fit(flow, data, steps=20, seed=5)
        runs.append((flow.transform.params.detach().clone(), history.loss))
    assert torch.equal(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1]
    assert len(history.loss) == 20 and "20 steps" in repr(history)


@pytest.mark.parametrize("by_density", [False, True])
def test_a_compiled_flow_trains_compiled_and_alike(by_density):
    captured, ends = [], []

    def backend(graph, inputs):
        captured.append(graph)
        return graph.forward

    law = mf.data.Banana()
    data = law.sample((64,), generator=torch.Generator().manual_seed(0))
    for compiles in (False, True):
        torch.manual_seed(0)
        flow = mf.nsf(2, layers=2, hidden=(8,))
        if compiles:
            part = flow.transform if by_density else flow
            part.compile(backend=backend, fullgraph=True)
        assert not captured
        if by_density:
            history = mf.fit_energy(flow, law.log_prob, steps=5, batch_size=32)
        else:
            history = mf.fit(flow, data, validation=0.5, steps=5, batch_size=32)
        ends.append(torch.tensor(history.loss))
    assert captured
    torch.testing.assert_close(*ends)


def test_fit_calls_initialize():
    class Starts(mf.Elementwise):
        def initialize(self, x, context=None):
            self.started_from = x.shape

    transform = Starts(1, mf.Affine())
    mf.fit(mf.Flow(transform), torch.randn(30, 1), steps=1)
    assert transform.started_from == (30, 1)


def test_a_context_is_used():
    from contract import Conditional

    torch.manual_seed(0)
    context = torch.randn(3000, 2)
    data = context[:, :1] * 2 + 0.1 * torch.randn(3000, 1)
    flow = mf.Flow(Conditional(1, mf.Affine()))
    mf.fit(flow, data, context=context, steps=800, lr=0.05)
    truth = 0.5 * math.log(2 * math.pi * math.e * 0.01)
    assert -flow.log_prob(data, context).mean() < truth + 0.05


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (dict(data=torch.zeros(1)), ValueError, r"\(N, 1\).*\(1,\)"),
        (dict(data=torch.zeros(0, 1)), ValueError, "N >= 1"),
        (dict(data=torch.zeros(5, 3)), ValueError, r"\(\.\.\., 1\).*\(5, 3\)"),
        (dict(data=torch.tensor([[0.0], [math.nan]])), ValueError, "1 of 2 rows"),
        (dict(data=torch.zeros(5, 1).double()), TypeError, "float64"),
        (dict(data=[[1.0]]), TypeError, "tensor, a map-style data set or a loader; got list"),
        (dict(flow=mf.Elementwise(1, mf.Affine())), TypeError, "fit takes a Flow"),
        (
            dict(context=torch.zeros(5, 2)),
            ValueError,
            r"takes no context, but one of shape \(5, 2\)",
        ),
        (dict(steps=0), ValueError, "at least 1; got 0"),
        (dict(batch_size=0), ValueError, "at least 1"),
        (dict(flow=mf.Flow(mf.Elementwise(1, mf.Sigmoid()))), ValueError, "no parameter"),
    ],
)
def test_wrong_input_is_named_and_loses_nothing(change, error, words):
    arguments = dict(flow=affine_flow(), data=torch.zeros(5, 1)) | change
    before = {k: v.clone() for k, v in arguments["flow"].state_dict().items()}
    with pytest.raises(error, match=words):
        mf.fit(**arguments)
    for name, tensor in arguments["flow"].state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_context_of_the_wrong_shape_is_named():
    from contract import Conditional

    flow = mf.Flow(Conditional(1, mf.Affine()))
    for shape in [(3, 2), (5, 1, 2), (5,), ()]:
        with pytest.raises(ValueError, match=r"\(5, 2\), a row for each"):
            mf.fit(flow, torch.zeros(5, 1), context=torch.zeros(shape))


@pytest.mark.parametrize("steps", [1, 5])
def test_a_run_that_diverges_puts_the_last_good_weights_back(steps):
    flow, data = affine_flow(), torch.randn(50, 1)
    with pytest.raises(FloatingPointError, match="back at the last finite loss"):
        mf.fit(flow, data, steps=steps, lr=1e30)
    assert flow.log_prob(data).isfinite().all()


def test_data_that_wants_gradients_gets_none():
    data = torch.randn(50, 1, requires_grad=True)
    mf.fit(affine_flow(), data, steps=2)
    assert data.grad is None


def test_a_loss_that_is_not_finite_stops_with_finite_weights():
    flow = mf.Flow(mf.Compose(mf.Elementwise(1, mf.Affine()), mf.Elementwise(1, mf.Sigmoid())))
    with pytest.raises(FloatingPointError, match="step 0: the loss is inf"):
        mf.fit(flow, torch.tensor([[0.5], [1.5]]), steps=3)
    assert all(p.isfinite().all() for p in flow.parameters())


# What it learns from


def spread_points(count=300):
    return torch.randn(count, 1, generator=torch.Generator().manual_seed(0)) * 2 + 1


def test_a_data_set_gives_the_same_flow_as_its_tensor():
    from contract import Conditional

    data = spread_points()
    context = torch.cat([data.sign(), data.square()], -1)
    made = []
    for how in [
        dict(data=data, context=context),
        dict(data=TensorDataset(data, context)),
    ]:
        torch.manual_seed(0)
        flow = mf.Flow(Conditional(1, mf.Affine()))
        history = mf.fit(flow, validation=0.2, steps=50, batch_size=40, check_every=10, **how)
        made.append((flow.state_dict(), history))
    for name, tensor in made[0][0].items():
        assert torch.equal(tensor, made[1][0][name])
    assert made[0][1] == made[1][1]


def test_a_loader_is_started_again_when_it_ends():
    data = spread_points(100)
    loader = DataLoader(TensorDataset(data), batch_size=25)
    flow = affine_flow()
    history = mf.fit(flow, loader, steps=400, lr=0.05, validation=loader, check_every=200)
    shift, raw = flow.transform.params.detach()
    assert abs(shift - data.mean()) < 0.1 and abs(raw.exp() - data.std(correction=0)) < 0.1
    assert history.validation[-1][1] == pytest.approx(-flow.log_prob(data).mean().item(), abs=1e-5)


def test_a_loader_that_cannot_start_again_is_named():
    once = iter([spread_points(10), spread_points(10)])
    with pytest.raises(ValueError, match="no batch at step 1: it must have some, and start again"):
        mf.fit(affine_flow(), once, steps=5)


@pytest.mark.parametrize("count", [1, 7, 60, 61])
def test_each_pass_deals_out_every_row_once_and_a_step_has_its_own_rows(count):
    rows = Rows(torch.arange(60.0).unsqueeze(-1))
    steps = range(-(-180 // min(count, 60)))
    dealt = torch.cat([rows.of_step(step, count, seed=4)[0].flatten() for step in steps])
    passes = dealt[:180].reshape(3, 60)
    assert torch.equal(passes.sort(-1).values, torch.arange(60.0).expand(3, 60))
    assert not torch.equal(passes[0], passes[1])
    late, _ = Rows(rows.x).of_step(steps[-1], count, seed=4)
    assert torch.equal(late, rows.of_step(steps[-1], count, seed=4)[0])
    others = torch.cat([rows.of_step(step, count, seed=5)[0].flatten() for step in steps])
    assert not torch.equal(dealt, others)


def test_held_out_rows_are_never_trained_on():
    read = {"train": set(), "score": set()}

    class Watched(Dataset):
        def __len__(self):
            return 50

        def __getitem__(self, row):
            read["train" if torch.is_grad_enabled() else "score"].add(row)
            return torch.tensor([row / 25])

    mf.fit(affine_flow(), Watched(), validation=0.3, steps=20, batch_size=10, check_every=5)
    assert len(read["score"]) == 15 and len(read["train"]) == 35
    assert not read["train"] & read["score"]


@pytest.mark.parametrize("kind", ["tensor", "data set", "loader"])
def test_the_weights_that_scored_best_are_kept(kind):
    held_out = spread_points(200)[100:]
    validation = {
        "tensor": held_out,
        "data set": TensorDataset(held_out),
        "loader": DataLoader(TensorDataset(held_out), batch_size=30),
    }[kind]
    few = spread_points(8)
    flow = mf.Flow(mf.Elementwise(1, mf.MixtureCDF(8)))
    history = mf.fit(flow, few, validation=validation, steps=400, check_every=20, lr=0.1)
    scores = dict(history.validation)
    assert list(scores) == list(range(20, 401, 20))
    assert history.best_step == min(scores, key=scores.get) < 200  # eight points are overfitted
    score = -flow.log_prob(held_out).mean().item()
    assert score == pytest.approx(scores[history.best_step], abs=1e-5)
    assert f"at step {history.best_step}" in repr(history)


def test_patience_stops_the_run():
    flow = mf.Flow(mf.Elementwise(1, mf.MixtureCDF(8)))
    options = dict(validation=spread_points(200), steps=2000, check_every=20, lr=0.1)
    history = mf.fit(flow, spread_points(8), patience=3, **options)
    assert history.validation[-1][0] == history.best_step + 60 == len(history.loss) < 2000


def test_parts_that_were_in_eval_mode_stay_so():
    first, second = mf.Elementwise(1, mf.Affine()), mf.Elementwise(1, mf.Affine())
    flow = mf.Flow(mf.Compose(first.eval(), second))
    mf.fit(flow, spread_points(), validation=0.5, steps=3, check_every=1)
    assert flow.training and not first.training and second.training


# How it steps


def watch_steps(monkeypatch):
    """(learning rate, norm of the gradient) at each step of Adam."""
    seen, take = [], torch.optim.Adam.step

    def watched(self, *arguments, **options):
        group = self.param_groups[0]
        norm = torch.cat([p.grad.flatten() for p in group["params"]]).norm().item()
        seen.append((group["lr"], norm))
        return take(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    return seen


def test_the_rate_rises_and_falls_as_a_cosine_and_gradients_are_clipped(monkeypatch):
    seen = watch_steps(monkeypatch)
    mf.fit(affine_flow(), 50 + spread_points(), steps=30, lr=0.1, warmup=4, clip=0.5)
    rates, norms = map(list, zip(*seen, strict=True))
    assert rates[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert rates[17] == pytest.approx(0.05) and 0 < rates[29] < 0.001
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert max(norms) == pytest.approx(0.5, rel=1e-3)
    seen.clear()
    mf.fit(affine_flow(), 50 + spread_points(), steps=1, lr=0.1)
    assert seen[0][0] == 0.1 and seen[0][1] > 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adam_is_fused_on_the_cpu_and_learns_in_any_dtype(dtype):
    plan = Plan(1, 1, 0.1, 0, None, "stop", 0, None, None, 1)
    flow = affine_flow().to(dtype)
    assert Run(flow, plan).optimizer.defaults["fused"] is True
    mf.fit(flow, spread_points().to(dtype), steps=300, lr=0.05)
    shift = flow.transform.params[0]
    assert shift.dtype == dtype and abs(shift - spread_points().mean()) < 0.1


def test_the_global_generator_is_left_as_it_was():
    before = torch.get_rng_state()
    mf.fit(affine_flow(), spread_points(), steps=3, validation=0.5)
    mf.fit_energy(affine_flow(), lambda x: -x.square().sum(-1), steps=3)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("shown", [True, False, None])
def test_the_bar_shows_loss_and_validation_in_nats(shown, capsys):
    mf.fit(affine_flow(), spread_points(), steps=3, validation=0.5, check_every=1, progress=shown)
    words = capsys.readouterr().err
    if shown:
        assert "3/3" in words
        assert re.search(r"loss \d\.\d{3} nats, validation 2\.\d{3} nats", words)
    else:  # the terminal that None asks for is not there
        assert words == ""


# When a step is not finite


def support_flow():
    return mf.Flow(mf.Compose(mf.Elementwise(1, mf.Affine()), mf.Elementwise(1, mf.Sigmoid())))


def test_a_bad_step_is_skipped_and_the_rest_learns():
    data = torch.linspace(0.2, 0.4, 100).unsqueeze(-1)
    data[3] = 1.5  # outside the support: the loss of its batch is infinite
    flow = support_flow()
    history = mf.fit(flow, data, steps=200, batch_size=10, lr=0.1, on_nonfinite="skip")
    assert 15 <= len(history.skipped) <= 21
    assert all(math.isnan(history.loss[step]) for step in history.skipped if step < 200)
    assert sum(map(math.isnan, history.loss)) == len([s for s in history.skipped if s < 200])
    good = torch.cat([data[:3], data[4:]])
    assert -flow.log_prob(good).mean() < math.log(0.2) + 0.25
    assert f"{len(history.skipped)} steps skipped" in repr(history)


def test_a_run_that_only_skips_stops():
    data = torch.tensor([[0.5], [1.5]])
    with pytest.raises(FloatingPointError, match="step 20: the loss is inf"):
        mf.fit(support_flow(), data, steps=100, on_nonfinite="skip")


class Breaks(mf.Elementwise):
    """An affine layer that makes a value, a log-det or a gradient that is not finite."""

    def __init__(self, what):
        super().__init__(1, mf.Affine())
        self.what = what

    def inverse(self, x, context=None):
        z, log_det = super().inverse(x)
        if self.what == "value":
            return z / 0, log_det
        if self.what == "log_det":
            return z, log_det.where(x[..., 0] > 0, math.nan)
        return (z - z).sqrt() + z, log_det  # the slope of the root at 0 is infinite

    def forward(self, z, context=None):
        return self.inverse(z)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("value", r"transforms\.1 \(Breaks\)\.inverse gives a value .* 300 of 300 rows"),
        ("log_det", r"transforms\.1 \(Breaks\)\.inverse gives a log_det .* inputs of size up to"),
        ("gradient", r"transforms\.1 \(Breaks\)\.inverse makes a gradient for params "),
    ],
)
def test_the_layer_that_broke_is_named(what, words):
    layers = [mf.Elementwise(1, mf.Affine()), Breaks(what), mf.Elementwise(1, mf.Affine())]
    flow = mf.Flow(mf.Compose(*layers))
    before = {k: v.clone() for k, v in flow.state_dict().items()}
    with pytest.raises(FloatingPointError, match=words):
        mf.fit(flow, spread_points(), steps=5, batch_size=300)
    assert all(torch.equal(v, before[k]) for k, v in flow.state_dict().items())


def test_a_density_that_breaks_is_not_blamed_on_a_layer():
    with pytest.raises(FloatingPointError, match="every layer is finite: look at the base"):
        mf.fit_energy(affine_flow(), lambda x: x.sum(-1) * math.nan, steps=2)


# Reverse KL


def conditional_flow():
    return mf.Flow(mf.Elementwise(1, mf.Affine(), context_dim=2, hidden=()))


def test_reverse_kl_learns_the_law_of_every_context():
    """Given c, x ~ N(c₁ − c₂, e^(2 c₂)): a linear network can say both numbers of it."""

    def log_density(x, c):
        law = torch.distributions.Normal(c[:, 0] - c[:, 1], c[:, 1].exp())
        return law.log_prob(x[:, 0]) + 2.0

    torch.manual_seed(0)
    contexts, new = torch.rand(500, 2), torch.rand(200, 2)
    flow = conditional_flow()
    history = mf.fit_energy(flow, log_density, context=contexts, steps=600, lr=0.05)
    assert history.loss[-1] == pytest.approx(-2.0, abs=0.02)
    with torch.no_grad():
        x, log_q = flow.sample_and_log_prob((100,), new)
        truth = log_density(x.reshape(-1, 1), new.repeat(100, 1)).reshape(100, 200) - 2.0
    assert 0 < (log_q - truth).mean() < 0.02


def test_annealing_weighs_the_density_from_a_hundredth_up_to_one():
    plan = Plan(100, 1, 0.1, 0, None, "stop", 0, None, None, 1, anneal=50)
    assert plan.weight(0) == pytest.approx(0.01) and plan.weight(25) == pytest.approx(0.505)
    assert [plan.weight(step) for step in (50, 99)] == [1.0, 1.0]
    assert replace(plan, anneal=0).weight(0) == 1.0
    # A standard normal q has E[log q] = −½ log 2πe, and this log p̃ the mean −½.
    history = mf.fit_energy(
        affine_flow(), lambda x: -0.5 * x.square().sum(-1), steps=2, anneal=1, batch_size=20_000
    )
    entropy = 0.5 * math.log(2 * math.pi * math.e)
    assert history.loss[0] == pytest.approx(-entropy + 0.01 * 0.5, abs=0.02)
    assert history.loss[1] == pytest.approx(-entropy + 0.5, abs=0.02)


def test_a_run_with_annealing_and_contexts_goes_on_where_it_stopped(tmp_path):
    def log_density(x, c):
        calls.append(1)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return -0.5 * (x - c[:, :1]).square().sum(-1)

    def run(path):
        torch.manual_seed(3)
        flow = conditional_flow()
        kwargs = dict(context=contexts, steps=20, anneal=10, batch_size=8, checkpoint_every=4)
        mf.fit_energy(flow, log_density, checkpoint=path, **kwargs)
        return flow.state_dict()

    contexts = torch.rand(30, 2)
    calls, stop = [], None
    whole = run(tmp_path / "whole")
    calls, stop = [], 7
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken")
    calls, stop = [], None
    again = run(tmp_path / "broken")
    assert len(calls) == 17  # from step 4 on, and the look after the last update
    assert all(torch.equal(whole[k], again[k]) for k in whole)
    contexts = torch.rand(30, 2)
    with pytest.raises(ValueError, match="context"):
        run(tmp_path / "broken")


def test_reverse_kl_reaches_a_normal_law_and_its_normaliser():
    mean, factor = torch.tensor([1.0, -2.0]), torch.tensor([[1.5, 0.0], [-0.6, 0.4]])
    law = torch.distributions.MultivariateNormal(mean, scale_tril=factor)
    flow = mf.Flow(mf.TriangularAffine(2))
    history = mf.fit_energy(flow, lambda x: law.log_prob(x) + 3.0, steps=1200, lr=0.05)
    torch.testing.assert_close(flow.transform.shift.detach(), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(flow.transform.matrix().detach(), factor, atol=0.05, rtol=0)
    assert history.loss[-1] == pytest.approx(-3.0, abs=0.01)  # −log Z, once q is p


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (dict(log_density=lambda x: x), ValueError, r"shape \(8,\); got \(8, 1\)"),
        (dict(log_density=1.0), TypeError, "must be callable; got 1.0"),
        (dict(flow=mf.Elementwise(1, mf.Affine())), TypeError, "fit_energy takes a Flow"),
        (dict(steps=0), ValueError, "steps must be at least 1; got 0"),
        (dict(warmup=5), ValueError, "warmup must be from 0 to steps - 1; got 5"),
        (dict(lr=math.nan), ValueError, "lr must be positive and finite; got nan"),
        (dict(clip=0.0), ValueError, "clip must be positive or None; got 0.0"),
        (dict(seed=-1), ValueError, "seed must be from 0"),
        (dict(steps=10.5), TypeError, "steps must be a whole number; got 10.5"),
        (dict(warmup=True), TypeError, "warmup must be a whole number"),
        (dict(log_density=lambda x: 0.0), ValueError, r"shape \(8,\); got 0.0"),
        (dict(log_density=lambda x: -x.detach()[:, 0]), ValueError, "undetached"),
        (dict(on_nonfinite="ignore"), ValueError, "'stop' or 'skip'; got 'ignore'"),
        (dict(anneal=5), ValueError, "anneal must be from 0 to steps - 1; got 5"),
        (dict(anneal=0.5), TypeError, "anneal must be a whole number; got 0.5"),
        (dict(context=torch.zeros(3, 1)), ValueError, "the flow takes no context"),
        (dict(flow=conditional_flow()), ValueError, "the flow takes contexts of size 2"),
        (
            dict(flow=conditional_flow(), context=torch.zeros(3, 1)),
            ValueError,
            r"context must have shape \(..., 2\)",
        ),
        (
            dict(flow=conditional_flow(), context=torch.zeros(2)),
            ValueError,
            r"context must have shape \(N, C\); got \(2,\)",
        ),
        (
            dict(flow=conditional_flow(), context=torch.full((3, 2), math.nan)),
            ValueError,
            "context holds NaN",
        ),
    ],
)
def test_wrong_input_to_fit_energy_is_named(change, error, words):
    arguments = dict(
        flow=affine_flow(), log_density=lambda x: -x.square().sum(-1), steps=5, batch_size=8
    )
    with pytest.raises(error, match=words):
        mf.fit_energy(**(arguments | change))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (dict(validation=1.5), ValueError, r"validation=1\.5 of 300 rows leaves one side empty"),
        (dict(validation=0.0), ValueError, "leaves one side empty"),
        (dict(validation=torch.zeros(3, 2)), ValueError, r"validation must have shape .*, 1\)"),
        (dict(data=DataLoader(spread_points()), validation=0.1), TypeError, "fraction of a loader"),
        (dict(data=TensorDataset(spread_points(0))), ValueError, "data has no rows"),
        (dict(data=7), TypeError, "got int"),
        (dict(data=[{"x": 1.0}]), TypeError, "got list"),
        (dict(data=DataLoader([{"x": 1.0}])), TypeError, r"tensors; got \(dict\)"),
        (dict(data=DataLoader([1.0]), context=torch.zeros(1, 1)), TypeError, "context goes with"),
        (dict(data=TensorDataset(*[spread_points()] * 3)), TypeError, r"\(Tensor, Tensor, Tens"),
        (dict(patience=0), ValueError, "patience must be positive"),
        (dict(check_every=0), ValueError, "check_every must be at least 1"),
    ],
)
def test_wrong_data_and_settings_are_named(change, error, words):
    with pytest.raises(error, match=words):
        mf.fit(**(dict(flow=affine_flow(), data=spread_points(), steps=5) | change))


# What an attempt to break it has found


def test_skipping_a_bad_batch_keeps_what_the_good_ones_taught():
    good, bad = spread_points(100), torch.full((1, 1), math.nan)
    loader = DataLoader([good, bad], batch_size=None)
    flow = affine_flow()
    history = mf.fit(flow, loader, steps=400, lr=0.1, on_nonfinite="skip")
    assert history.skipped == list(range(0, 400, 2)) and math.isnan(history.loss[398])
    assert "last loss nan" not in repr(mf.History([1.0, math.nan], skipped=[1]))
    exact = 0.5 * (math.log(2 * math.pi * math.e) + math.log(good.var(correction=0)))
    loss = -flow.log_prob(good).mean().item()
    assert loss == pytest.approx(exact, abs=0.01)


def test_a_bad_first_step_keeps_the_start_from_the_data():
    from contract import StartsFromData

    data = 1000 + spread_points(200)
    loader = DataLoader([data, torch.full((1, 1), math.nan), data], batch_size=None)
    flow = mf.Flow(StartsFromData(1))
    mf.fit(flow, loader, steps=2, on_nonfinite="skip")
    assert abs(flow.transform.shift - data.mean()) < 1


def test_only_the_run_s_own_generators_are_seeded(monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("all GPUs"))
    mf.fit(affine_flow(), spread_points(), steps=2)
    mf.diagnose(affine_flow(), spread_points())


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_gradients_that_the_caller_switched_off_are_switched_on(off):
    flow = affine_flow()
    with off():
        mf.fit(flow, spread_points(), steps=200, lr=0.05)
        assert mf.diagnose(flow, spread_points()).ok
    assert abs(flow.transform.params[0] - spread_points().mean()) < 0.2


def test_data_of_any_strides_are_taken():
    mf.fit(affine_flow(), torch.randn(1, 100).T, steps=2)
    mf.fit(affine_flow(), torch.randn(1, 1).expand(50, 1), steps=2)


def test_all_scores_that_are_no_numbers_run_out_of_patience():
    flow = support_flow()
    validation = torch.tensor([[0.5], [1.5]])
    data = torch.rand(100, 1, generator=torch.Generator().manual_seed(0))
    options = dict(steps=100, check_every=5, patience=2)
    history = mf.fit(flow, data, validation=validation, **options)
    assert len(history.loss) == 10 and history.best_step is None


def test_the_last_look_is_no_step_to_skip():
    loader = DataLoader([spread_points(10)] * 2 + [torch.full((1, 1), math.nan)], batch_size=None)
    flow = affine_flow()
    history = mf.fit(flow, loader, steps=1, on_nonfinite="skip")
    assert history.skipped == [] and len(history.loss) == 1


class Stream(IterableDataset):
    def __iter__(self):
        return iter(torch.zeros(5, 1))


class Frame:
    """As much of a pandas data frame as matters here."""

    iloc = None

    def __len__(self):
        return 3

    def __getitem__(self, column):
        raise KeyError(column)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (dict(data=Stream()), TypeError, "data is an IterableDataset: wrap it in a DataLoader"),
        (dict(data=Frame()), TypeError, "got Frame. torch.tensor"),
        (dict(validation=math.nan), ValueError, "validation=nan of 300 rows"),
        (dict(validation=iter([spread_points(9)])), ValueError, "validation gave no batch: a load"),
        (dict(validation=DataLoader([], batch_size=None)), ValueError, "validation gave no batch"),
        (dict(check_every=1.5), TypeError, "check_every must be a whole number"),
    ],
)
def test_what_cannot_be_learned_from_is_named(change, error, words):
    options = dict(data=spread_points(), steps=4, check_every=2) | change
    with pytest.raises(error, match=words):
        mf.fit(affine_flow(), **options)


def test_rows_that_are_no_numbers_are_not_blamed_on_a_layer():
    from contract import Conditional

    rows = spread_points(40)
    rows[7] = math.nan
    with pytest.raises(FloatingPointError, match="1 of 40 rows of the batch hold NaN"):
        mf.fit(affine_flow(), TensorDataset(rows), steps=3, batch_size=40)
    with pytest.raises(FloatingPointError, match="some points lie outside the support"):
        mf.fit(support_flow(), torch.tensor([[0.5], [1.5]]), steps=3)
    context = torch.zeros(40, 2)
    context[3, 1] = math.inf
    flow = mf.Flow(Conditional(1, mf.Affine()))
    with pytest.raises(ValueError, match="context holds NaN or infinity"):
        mf.fit(flow, spread_points(40), context=context, steps=3)
    with pytest.raises(FloatingPointError, match="the batch's context holds NaN"):
        mf.fit(flow, TensorDataset(spread_points(40), context), steps=3)
    with pytest.raises(ValueError, match=r"for validation, of shape \(300, 2\): TensorDataset"):
        mf.fit(flow, spread_points(), context=torch.zeros(300, 2), validation=spread_points())


def test_a_loss_that_nothing_can_lower_is_named():
    flow = mf.Flow(mf.Compose(mf.Elementwise(1, mf.Sigmoid()), mf.Elementwise(1, mf.Logit())))
    flow.register_parameter("idle", torch.nn.Parameter(torch.ones(1)))
    with pytest.raises(ValueError, match="depends on no parameter that is trained"):
        mf.fit(flow, spread_points(), steps=3)
