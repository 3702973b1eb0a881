"""What the exercises of chapter 3 say: numbers, symptoms and remarks, measured."""

import math
import re

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch

import minflow
from minflow.exercises import chapter
from minflow.exercises import training as ch3
from minflow.exercises.training import four_runs, patient

LETTERS = "ABCDEF"
FAULTS = dict(zip(LETTERS, "behafd", strict=True))


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12)
        yield


def nll(flow, x):
    with torch.no_grad():
        return -flow.log_prob(x).double().mean().item()


def above(letter, dim=2):
    """The loss on fresh points, less the entropy: without the noise that both share."""
    flow, target = patient(letter, dim)
    return minflow.paired_gap(target, flow, target.sample((10_000,))).nats


def log_dets(layer, start, direction):
    """What a layer says of its log-det, and what autograd finds."""
    go = getattr(layer, direction)
    jacobians = [torch.func.jacrev(lambda p: go(p)[0])(row) for row in start[:100]]
    true = torch.linalg.slogdet(torch.stack(jacobians)).logabsdet
    return go(start[:100])[1].detach(), true.detach()


def every_log_det(flow, x):
    """For each layer, both ways."""
    for layer in reversed(list(flow.transform)):
        z, _ = layer.inverse(x)
        yield log_dets(layer, x.detach(), "inverse")
        yield log_dets(layer, z.detach(), "forward")
        x = z


def round_trip(flow, x):
    with torch.no_grad():
        again, _ = flow.transform(flow.normalize(x))
    return (again - x).abs().max().item()


# The numbers of 3.1 to 3.10.


def test_the_numbers_agree_with_torch_and_scipy():
    loss, entropy, divergence, m, s = ch3.floor_and_gap()
    p, q = torch.distributions.Normal(4.0, 3.0), torch.distributions.Normal(0.0, 1.0)
    assert entropy == pytest.approx(p.entropy().item(), abs=1e-5)
    assert divergence == pytest.approx(torch.distributions.kl_divergence(p, q).item(), abs=1e-5)
    assert loss == pytest.approx(-scipy.stats.norm(4, 3).expect(scipy.stats.norm.logpdf), abs=1e-6)
    assert [round(v, 3) for v in (loss, entropy, divergence)] == [13.419, 2.518, 10.901]

    def expected(at):
        return -scipy.stats.norm(4, 3).expect(scipy.stats.norm(*at).logpdf)

    best = scipy.optimize.minimize(expected, (3.0, 2.0), method="Nelder-Mead").x
    assert best == pytest.approx((m, s), abs=1e-3)

    nats, bits = ch3.bits_per_dim()
    assert nats == -10_000 and round(bits, 3) == 3.304
    assert round(nats / (3072 * math.log(2)), 3) == -4.696  # what the solution says
    target = minflow.data.TwoMoons()
    loss, std = 1.7, torch.tensor([0.01, 20.0])
    moved = minflow.Standardize(2)
    moved.std.copy_(std)
    x = target.sample((50,))
    normal = minflow.Flow(minflow.Elementwise(2, minflow.Affine()))
    in_units = minflow.Flow(minflow.Compose(normal.transform, moved))
    change = nll(in_units, x * std) - nll(normal, x)
    assert ch3.in_data_units(loss, std).item() - loss == pytest.approx(change, abs=1e-4)


def test_what_the_remark_on_dropped_modes_says():
    heavy, light, wide = ch3.reverse_kls()
    assert (heavy, light) == pytest.approx((-math.log(0.75), -math.log(0.25)), abs=1e-6)
    assert (round(heavy, 4), round(light, 4)) == (0.2877, 1.3863)
    assert round(wide, 1) == 5.6
    assert 6**2 / (2 * 0.5**2) == 72  # the other bump, at the centre of this one
    p = [(w, scipy.stats.norm(m, 0.5)) for w, m in [(0.25, -3), (0.75, 3)]]
    mean = sum(w * b.mean() for w, b in p)
    variance = sum(w * (b.var() + b.mean() ** 2) for w, b in p) - mean**2
    assert (mean, variance) == (1.5, 7)
    q = scipy.stats.norm(mean, variance**0.5)

    def term(x):
        log_p = scipy.special.logsumexp([b.logpdf(x) for _, b in p], b=[w for w, _ in p])
        return q.pdf(x) * (q.logpdf(x) - log_p)

    assert scipy.integrate.quad(term, -15, 18, limit=200)[0] == pytest.approx(wide, abs=1e-4)


def test_both_gaps_agree_and_so_do_the_prices_in_two_dimensions():
    x = torch.randn(9, 3).double()
    A, L = (torch.randn(3, 3).double().tril() for _ in range(2))
    for matrix in (A, L):
        matrix.diagonal().abs_().add_(0.5)
    m, b = torch.randn(2, 3).double()
    in_data, in_base = ch3.both_gaps(x, m, A, b, L)
    assert in_data.item() == pytest.approx(in_base.item(), abs=1e-9)

    for rho in (0.3, 0.9):
        *_, forward, reverse = ch3.mean_field(torch.tensor([[4.0, 2 * rho], [2 * rho, 1.0]]))
        expected = -0.5 * math.log(1 - rho**2)
        assert (forward.item(), reverse.item()) == pytest.approx((expected, expected), abs=1e-5)
    three = torch.tensor([[1.0, 0.8, 0.8], [0.8, 1.0, 0.5], [0.8, 0.5, 1.0]])
    *_, forward, reverse = ch3.mean_field(three)
    assert abs(forward - reverse) > 0.05  # "with more they differ"


def test_the_mean_field_fits_are_the_best():
    root = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [-0.5, 0.4, 1.1]]).double()
    zero, Sigma = torch.zeros(3).double(), root @ root.T
    p = torch.distributions.MultivariateNormal(zero, Sigma)
    forward, reverse, *prices = ch3.mean_field(Sigma)
    kl = torch.distributions.kl_divergence
    for sds, price, cost in [
        (forward, prices[0], lambda q: kl(p, q)),
        (reverse, prices[1], lambda q: kl(q, p)),
    ]:
        for factor in (torch.ones(3), *(1 + 0.02 * torch.randn(20, 3))):
            scale = torch.diag(sds * factor.double())
            q = torch.distributions.MultivariateNormal(zero, scale_tril=scale)
            assert cost(q) >= price - 1e-9
        q = torch.distributions.MultivariateNormal(zero, scale_tril=torch.diag(sds))
        assert cost(q).item() == pytest.approx(price.item())


def test_stein_is_blind_to_a_constant_and_sees_a_wrong_slope():
    x = torch.randn(20_000, 2).double()
    mean, error = ch3.stein(ch3.normal_log_prob, x)
    shifted, _ = ch3.stein(lambda x: ch3.normal_log_prob(x) + 3, x)
    assert abs(mean) < 4 * error and shifted == mean
    mean, error = ch3.stein(lambda x: 1.2 * ch3.normal_log_prob(x), x)
    assert abs(mean) > 10 * error


def test_what_simple_flows_miss_on_the_noisy_moons():
    def left(layer):
        return ch3._gap(ch3._small(layer)).nats

    assert left(minflow.TriangularAffine(2)) == pytest.approx(0.32, abs=0.02)
    assert left(ch3._shape()) == pytest.approx(0.30, abs=0.02)
    assert ch3._gap(ch3.trained_flow()).nats == pytest.approx(0.05, abs=0.02)


def test_the_four_runs_are_what_the_answer_says():
    too_low, overfits, wrong, too_high = four_runs()
    entropy = minflow.data.TwoMoons().entropy().item()
    looks = [[score for _, score in run.validation] for run in (too_low, overfits, wrong, too_high)]
    assert max(looks[0]) - min(looks[0]) < 0.1 and min(looks[0]) > entropy + 1
    assert looks[1][-1] > min(looks[1]) + 0.3 and overfits.loss[-1] < looks[1][-1] - 1
    assert looks[2][-1] < entropy - 3
    assert max(too_high.loss[:10]) > too_high.loss[0] + 5 and min(looks[3]) > entropy + 1
    assert ch3.which_run() == (4, 1, 2, 3)


# The bug hunt: the symptoms that hints, remarks and answers speak of.


def test_the_letters_are_given_and_the_patients_their_own():
    solved = chapter("training").exercises[10:]
    assert [e.reference() for e in solved] == list(FAULTS.values())
    one, other = patient("A").flow, patient("A").flow
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert a is not b and torch.equal(a, b)
    with torch.no_grad():
        next(one.parameters()).add_(1)
    assert not torch.equal(next(one.parameters()), next(patient("A").flow.parameters()))
    state = torch.get_rng_state()
    patient("C", 5)
    assert torch.equal(torch.get_rng_state(), state)
    for letter, dim in [("G", 2), ("a", 2), ("A", 1), ("A", 2.0), ("A", True)]:
        with pytest.raises(ValueError, match=r"no patient|dim must be"):
            patient(letter, dim)


def test_the_names_give_nothing_away():
    telling = r"flip|wrong|sign|miss|forg|shrink|bug|fault|broken|buffer|const|2 ?pi|only"
    for letter in LETTERS:
        shown = repr(patient(letter))
        assert not re.search(telling, shown, re.IGNORECASE), shown


def test_diagnose_calls_two_of_the_six_healthy():
    named = {}
    for letter in LETTERS:
        flow, target = patient(letter)
        found = minflow.diagnose(flow, target.sample((5000,)))
        named[letter] = [f.check for f in found.wrong]
    assert [letter for letter in LETTERS if not named[letter]] == ["C", "D"]
    assert named["A"] == named["B"] == ["log-det"] and named["E"] == ["mass"]


def test_targets_are_as_the_notebook_describes_them():
    for dim in (2, 3, 4):
        sds = torch.linalg.eigvalsh(patient("A", dim).target.covariance_matrix).sqrt()
        assert (sds[0].item(), sds[-1].item()) == pytest.approx((0.5, 2.0), abs=1e-4)
        x = patient("B", dim).target.sample((100,))
        assert x.shape == (100, dim) and ((x > 0) & (x < 1)).all()


@pytest.mark.parametrize("letter", "ABDEF")
@pytest.mark.parametrize("dim", [2, 3])
def test_round_trips_come_back_but_for_c(letter, dim):
    flow, target = patient(letter, dim)
    assert round_trip(flow, target.sample((200,))) < 1e-3


@pytest.mark.parametrize("letter", "CDEF")
def test_log_dets_are_right_but_for_a_and_b(letter):
    for dim in (2, 3):
        flow, target = patient(letter, dim)
        for said, true in every_log_det(flow, target.sample((10,))):
            assert torch.allclose(said, true, atol=1e-3)


@pytest.mark.parametrize("letter", "ABCDEF")
def test_scoring_changes_nothing_and_training_rows_are_not_special(letter):
    flow, target = patient(letter)
    before = {k: v.clone() for k, v in flow.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trained_on = target.sample((8000,))  # the patient's own rows
    fresh = target.sample((8000,))
    own, other = (minflow.paired_gap(target, flow, x) for x in (trained_on, fresh))
    assert abs(own.nats - other.nats) < 0.01 + 4 * math.hypot(own.error, other.error)
    assert all(torch.equal(v, before[k]) for k, v in flow.state_dict().items())


@pytest.mark.parametrize("letter", "ABCDF")
def test_the_base_has_mass_1_but_for_e(letter):
    z = torch.linspace(-8, 8, 321)
    base = patient(letter).flow.base
    mass = base.log_prob(torch.cartesian_prod(z, z)).exp().sum() * (z[1] - z[0]) ** 2
    assert mass.item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("letter", "ABE")
def test_samples_have_the_spread_of_the_data(letter):
    flow, target = patient(letter)
    x, made = target.sample((20_000,)), flow.sample(20_000)
    assert torch.allclose(x.std(0), made.std(0), rtol=0.06)
    for share in (0.1, 0.5, 0.9):
        apart = x.quantile(share, 0) - made.quantile(share, 0)
        assert (apart.abs() < 0.12 * x.std(0)).all()


def test_patient_a():
    flow, target = patient("A")
    assert above("A") < -11
    x = target.sample((4000,))
    layers = list(every_log_det(flow, x[:5]))
    for said, true in layers[:2]:  # the layer next to the data
        assert torch.allclose(said, true, atol=1e-3)
    for said, true in layers[2:]:
        assert torch.allclose(said, -true, atol=1e-3) and (said.abs() > 1).all()
    stretch, shrink = layers[3][1], layers[1][1]  # both forward
    assert stretch[0] > 4 and shrink[0] < -4  # "the other layer made up for it"
    before = nll(flow, x)
    minflow.fit(flow, x, steps=300, lr=0.05)
    assert nll(flow, x) < before


def test_patient_b():
    flow, target = patient("B")
    assert above("B") > 3
    x = target.sample((4000,))
    box = list(flow.transform)[-1]
    said, true = log_dets(box, x, "inverse")
    assert (said == 0).all() and true.std() > 0.3 and (true > 1).all()
    missing = -(x * (1 - x)).log().sum(-1)
    assert torch.allclose(true, missing[:100], atol=1e-3)
    mended = target.log_prob(x) - (flow.log_prob(x) + missing)
    assert abs(mended.mean()) < 0.03  # the rest of it is right
    for said, true in list(every_log_det(flow, x[:5]))[2:]:
        assert torch.allclose(said, true, atol=1e-3)
    before = minflow.paired_gap(target, flow, x).nats
    minflow.fit(flow, target.sample((8000,)), steps=300, lr=0.05)
    assert abs(minflow.paired_gap(target, flow, x).nats - before) < 0.05


def test_patient_c():
    assert abs(above("C")) < 0.01
    for dim in (2, 3, 4):
        flow, target = patient("C", dim)
        untrained = patient("C", dim, trained=False).flow
        x = target.sample((100,))
        assert abs(above("C", dim)) < 0.1
        assert (round_trip(flow, x) > 1) == (dim > 2)
        assert round_trip(untrained, x) < 1e-5


def test_patient_d(tmp_path):
    flow, target = patient("D")
    assert abs(above("D")) < 0.05
    minflow.save(flow, tmp_path / "flow")
    x = target.sample((2000,))
    sides = []
    for first in (x[x[:, 0] < -1], x[x[:, 0] > 3]):
        loaded = minflow.load(tmp_path / "flow", patient("D", trained=False).flow)
        before = {k: v.clone() for k, v in loaded.state_dict().items()}
        nll(loaded, first)
        changed = [k for k, v in loaded.state_dict().items() if not torch.equal(v, before[k])]
        assert changed == ["transform.transforms.1.mean", "transform.transforms.1.log_std"]
        sides.append(minflow.paired_gap(target, loaded, x).nats)
        assert round_trip(loaded, x) < 1e-3
        for said, true in every_log_det(loaded, x[:5]):
            assert torch.allclose(said, true, atol=1e-3)
    assert min(sides) > 1


def test_patient_e():
    for dim in (2, 3, 4):
        assert above("E", dim) == pytest.approx(-0.919 * dim, abs=0.02)
    assert 0.5 * math.log(2 * math.pi) == pytest.approx(0.919, abs=5e-4)
    flow, target = patient("E")
    x = target.sample((8000,))
    before = nll(flow, x)
    minflow.fit(flow, x, steps=300, lr=0.05)
    assert abs(nll(flow, x) - before) < 0.03  # no further down, unlike A


def test_patient_f():
    cost = 0.5 * (4 - 1 - math.log(4))
    assert cost == pytest.approx(0.81, abs=5e-3)
    flow, target = patient("F")
    x = target.sample((20_000,))
    first = minflow.paired_gap(target, flow, x)
    minflow.fit(flow, x, steps=600, lr=0.05)
    later = minflow.paired_gap(target, flow, x)
    assert 0 < first.nats - later.nats < 0.1
    assert abs(later.nats - cost) < 4 * later.error
    spread = torch.linalg.eigvalsh(torch.cov(flow.sample(20_000).T)).sqrt()
    assert spread.tolist() == pytest.approx([0.5, 1.0], abs=0.03)
    assert np.all(spread.numpy() < 1.05)
