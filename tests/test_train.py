"""fit: it reaches a known truth, repeats itself, and loses nothing on bad input."""

import math

import pytest
import torch

import minflow as mf


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
        (dict(data=[[1.0]]), TypeError, "Tensor; got list"),
        (dict(flow=mf.Elementwise(1, mf.Affine())), TypeError, "fit takes a Flow"),
        (dict(context=torch.zeros(5, 2)), ValueError, r"\(5, 0\).*\(5, 2\)"),
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
