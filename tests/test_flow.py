"""Flow: shapes, densities, the torch Distribution, and errors that name both shapes."""

import copy
import math

import pytest
import torch
from contract import Conditional, StartsFromData
from torch.distributions import (
    Beta,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    Poisson,
    Uniform,
    kl_divergence,
)

import minflow as mf


def some_flow(dim=3, seed=0):
    torch.manual_seed(seed)
    flow = mf.Flow(mf.Compose(mf.TriangularAffine(dim), mf.Elementwise(dim, mf.MixtureCDF(4))))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.normal_(0, 0.3)
    return flow


def conditional_flow(dim=3):
    torch.manual_seed(0)
    return mf.Flow(Conditional(dim, mf.Affine()))


@pytest.mark.parametrize("shape", [(), (0,), 5, (5,), (2, 3)])
def test_sample_has_shape_plus_event(shape):
    expected = ((shape,) if isinstance(shape, int) else shape) + (3,)
    assert some_flow().sample(shape).shape == expected
    x, log_prob = some_flow().sample_and_log_prob(shape)
    assert x.shape == expected and log_prob.shape == expected[:-1]


def test_a_context_adds_its_batch_to_the_sample():
    flow, context = conditional_flow(), torch.randn(4, 7, 2)
    assert flow.sample((5,), context).shape == (5, 4, 7, 3)
    assert flow.log_prob(torch.randn(7, 3), context).shape == (4, 7)
    assert flow.distribution(context).batch_shape == (4, 7)


def test_log_prob_is_the_base_density_plus_the_inverse_log_det():
    flow, x = some_flow(), torch.randn(6, 3)
    z, log_det = flow.transform.inverse(x)
    normal = MultivariateNormal(torch.zeros(3), torch.eye(3))
    torch.testing.assert_close(flow.log_prob(x), normal.log_prob(z) + log_det)
    torch.testing.assert_close(flow.normalize(x), z)


def test_sample_and_log_prob_agrees_with_log_prob():
    flow = some_flow().double()
    x, log_prob = flow.sample_and_log_prob(50)
    torch.testing.assert_close(log_prob, flow.log_prob(x), rtol=1e-7, atol=1e-7)


def test_sample_has_no_gradient_and_rsample_has():
    flow = some_flow()
    assert not flow.sample(2).requires_grad
    assert flow.rsample(2).requires_grad


def test_a_seed_repeats_the_sample():
    flow = some_flow()
    torch.manual_seed(3)
    first = flow.sample(4)
    torch.manual_seed(3)
    assert torch.equal(first, flow.sample(4))


@pytest.mark.parametrize(
    ("base", "closed_form"),
    [
        (Beta(torch.tensor([2.0, 3.0]), torch.tensor([5.0, 1.0])), None),
        (Uniform(torch.zeros(2), torch.ones(2)), None),
        (Independent(Normal(torch.ones(2), torch.full((2,), 3.0)), 1), None),
        (MultivariateNormal(torch.ones(2), torch.tensor([[2.0, 0.3], [0.3, 1.0]])), None),
    ],
)
def test_a_torch_distribution_serves_as_base(base, closed_form):
    flow = mf.Flow(mf.Elementwise(2, mf.Affine()), base)
    z = base.sample((9,))
    expected = base.log_prob(z)
    expected = expected.sum(-1) if expected.dim() == 2 else expected
    torch.testing.assert_close(flow.log_prob(z), expected)
    assert flow.double().sample(3).dtype == torch.float64
    torch.testing.assert_close(flow.log_prob(z.double()), expected.double(), rtol=1e-5, atol=1e-5)


def test_a_logit_of_a_uniform_is_a_logistic():
    base = Uniform(torch.zeros(1), torch.ones(1))
    flow = mf.Flow(mf.Elementwise(1, mf.Logit()), base)
    x = torch.linspace(-5, 5, 11).unsqueeze(-1)
    logistic = (torch.sigmoid(x) * torch.sigmoid(-x)).log().squeeze(-1)
    torch.testing.assert_close(flow.log_prob(x), logistic)


def test_log_prob_is_minus_infinity_outside_the_support():
    flow = mf.Flow(mf.Elementwise(1, mf.Sigmoid()))
    assert flow.log_prob(torch.tensor([[-0.5], [1.5]])).tolist() == [-math.inf, -math.inf]
    base = Uniform(torch.zeros(1), torch.ones(1))
    flow = mf.Flow(mf.Elementwise(1, mf.Affine()), base)
    log_prob = flow.log_prob(torch.tensor([[0.5], [2.0]]))
    assert log_prob[0].isfinite() and log_prob[1] == -math.inf
    log_prob[0].backward()
    assert flow.transform.params.grad.isfinite().all()


def test_the_ends_of_the_support_and_points_outside_poison_no_gradient():
    flow = mf.Flow(mf.Compose(mf.Elementwise(1, mf.Affine()), mf.Elementwise(1, mf.Sigmoid())))
    log_prob = flow.log_prob(torch.tensor([[0.0], [0.5], [1.0], [1.5], [math.nan]]))
    assert log_prob[[0, 2, 3]].tolist() == [-math.inf] * 3
    assert log_prob[1].isfinite() and log_prob[4].isnan()
    log_prob[1].backward()
    assert next(flow.parameters()).grad.isfinite().all()


def test_nan_stays_nan_under_every_base():
    for base in (Uniform(torch.zeros(1), torch.ones(1)), None):
        flow = mf.Flow(mf.Elementwise(1, mf.Affine()), base)
        assert flow.log_prob(torch.tensor([math.nan])).isnan()


def test_calling_a_flow_scores():
    flow, x = some_flow(), torch.randn(5, 3)
    assert torch.equal(flow(x), flow.log_prob(x))
    parameters = dict(flow.named_parameters())
    again = torch.func.functional_call(flow, parameters, (x,))
    assert torch.equal(again, flow.log_prob(x))


def test_an_adapted_base_follows_its_flow_and_survives_a_copy():
    flow = mf.Flow(mf.Elementwise(2, mf.Affine()), Uniform(torch.zeros(2), torch.ones(2)))
    x = torch.full((3, 2), 0.25)
    expected = flow.log_prob(x)
    twin = copy.deepcopy(flow).double()
    assert twin.log_prob(x.double()).dtype == torch.float64
    assert torch.equal(flow.log_prob(x), expected)
    state = flow.state_dict() | {"base.tensor_1": torch.full((2,), 2.0)}
    flow.load_state_dict(state)
    torch.testing.assert_close(flow.log_prob(x), expected - 2 * math.log(2))


def test_scoring_draws_no_random_number():
    flow = mf.Flow(mf.Elementwise(1, mf.Affine()), Beta(torch.ones(1), torch.ones(1)))
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    flow.log_prob(torch.full((2, 1), 0.5))
    assert torch.equal(torch.rand(3), expected)


# --- a true torch Distribution ---


def test_distribution_is_accepted_by_torch():
    flow = some_flow()
    q = flow.distribution()
    assert (q.batch_shape, q.event_shape, q.has_rsample) == ((), (3,), True)
    assert q.sample((4,)).shape == (4, 3)
    assert q.expand((2,)).sample((4,)).shape == (4, 2, 3)
    assert q.expand((2,)).log_prob(torch.zeros(3)).shape == (2,)
    with pytest.raises(ValueError, match="support|shape"):
        q.log_prob(torch.full((3,), math.nan))
    with pytest.raises(NotImplementedError):
        kl_divergence(q, q)


def test_distribution_is_a_component_of_a_torch_mixture():
    q = conditional_flow().distribution(torch.tensor([[0.0, 1.0], [2.0, -1.0]]))
    mixture = MixtureSameFamily(torch.distributions.Categorical(torch.tensor([0.3, 0.7])), q)
    x = mixture.sample((5,))
    weighted = q.log_prob(x.unsqueeze(1)) + torch.tensor([0.3, 0.7]).log()
    torch.testing.assert_close(mixture.log_prob(x), weighted.logsumexp(-1))


def test_independent_takes_the_distribution():
    q = Independent(conditional_flow().distribution(torch.randn(6, 2)), 1)
    assert q.event_shape == (6, 3) and q.log_prob(q.sample()).shape == ()


# --- what a caller hands in ---


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda f: f.log_prob(torch.zeros(5, 2)), ValueError, r"\(\.\.\., 3\).*\(5, 2\)"),
        (lambda f: f.log_prob(torch.tensor(1.0)), ValueError, r"\(\.\.\., 3\).*\(\)"),
        (lambda f: f.log_prob([1.0, 2.0, 3.0]), TypeError, "Tensor; got list"),
        (lambda f: f.log_prob(torch.zeros(3).long()), TypeError, "int64"),
        (lambda f: f.log_prob(torch.zeros(3).double()), TypeError, r"float64.*float32.*x\.to"),
        (lambda f: f.log_prob(torch.zeros(3), torch.zeros(2)), ValueError, "takes no context"),
        (lambda f: f.sample(2, torch.zeros(2)), ValueError, "takes no context"),
        (lambda f: conditional_flow().log_prob(torch.zeros(3)), ValueError, r"\(\.\.\., 2\)"),
        (lambda f: conditional_flow().sample(2), ValueError, "needs a context"),
        (
            lambda f: conditional_flow().sample(2, torch.zeros(5)),
            ValueError,
            r"context.*\(\.\.\., 2\).*\(5,\)",
        ),
        (lambda f: mf.Flow(torch.nn.Linear(2, 2)), TypeError, "Transform; got Linear"),
        (lambda f: mf.Flow(f.transform, mf.StandardNormal(2)), ValueError, "2.*3"),
        (lambda f: mf.Flow(f.transform, Normal(0, 1)), ValueError, r"event_shape \(\)"),
        (lambda f: mf.Flow(f.transform, "normal"), TypeError, "got str"),
        (lambda f: mf.Flow(f.transform, Poisson(torch.ones(3))), ValueError, "continuous"),
        (lambda f: mf.Flow(f.transform, f.distribution()), TypeError, "Compose"),
        (
            lambda f: mf.Flow(f.transform, Normal(torch.zeros(3).double(), 1.0)),
            ValueError,
            "base computes in .*float64.*float32",
        ),
        (lambda f: mf.Affine(bound=0.0), ValueError, "bound must be positive"),
        (lambda f: mf.Flow(mf.Elementwise(2, mf.Logit())), ValueError, "reaches over"),
        (
            lambda f: mf.Flow(f.transform, Normal(torch.zeros(3, requires_grad=True), 1.0)),
            ValueError,
            "detach",
        ),
        (lambda f: mf.Elementwise(2, mf.Affine), TypeError, "Affine"),
        (lambda f: mf.Elementwise(0, mf.Affine()), ValueError, "at least 1; got 0"),
        (lambda f: mf.Elementwise(2.0, mf.Affine()), ValueError, "whole number"),
        (lambda f: mf.MixtureCDF(0), ValueError, "at least 1"),
        (lambda f: mf.Compose(), ValueError, "at least one"),
        (lambda f: mf.Compose([f.transform]), TypeError, "one by one"),
        (lambda f: mf.Inverse(f), TypeError, "got Flow"),
        (
            lambda f: mf.Compose(mf.TriangularAffine(2), mf.TriangularAffine(3)),
            ValueError,
            "part 0.*part 1.*2 and 3",
        ),
        (
            lambda f: mf.Compose(mf.Elementwise(2, mf.Sigmoid()), mf.Elementwise(2, mf.Sigmoid())),
            ValueError,
            "do not fit",
        ),
    ],
)
def test_wrong_input_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call(some_flow())


def test_initialize_reaches_every_layer_from_the_data_side():
    flow = mf.Flow(mf.Compose(StartsFromData(2), StartsFromData(2)))
    x = torch.randn(500, 2) * 3 + 5
    flow.initialize(x)
    z = flow.normalize(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std(0), torch.ones(2), atol=1e-5, rtol=0)


def test_a_flow_takes_half_precision_under_autocast():
    flow = mf.Flow(mf.TriangularAffine(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert flow.log_prob(torch.zeros(3, 2, dtype=torch.bfloat16)).shape == (3,)


def test_second_derivatives_and_vmap_reach_through_a_flow():
    flow = some_flow(2).double()
    x = torch.randn(4, 2, dtype=torch.float64)
    score = torch.func.vmap(torch.func.grad(flow.log_prob))(x)
    hessian = torch.func.vmap(torch.func.hessian(flow.log_prob))(x)
    assert score.shape == (4, 2) and hessian.shape == (4, 2, 2)
    torch.testing.assert_close(hessian, hessian.mT)
