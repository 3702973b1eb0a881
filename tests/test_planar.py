"""Planar, radial and Sylvester layers: inverses under hostile parameters, and their gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import minflow as mf
from minflow import planar
from minflow.planar import FLOOR, invertible
from minflow.testing import check_transform

EPS = torch.finfo(torch.float64).eps
D = 3
SIZES = st.sampled_from([0.0, 1e-300, 1e-8, 0.1, 1.0, 10.0, 1e3, 1e6])
UNITS = st.floats(-1, 1, allow_subnormal=False)


def vectors(length, sizes=SIZES):
    numbers = st.builds(lambda size, unit: size * unit, sizes, UNITS)
    return st.lists(numbers, min_size=length, max_size=length).map(
        lambda values: torch.tensor(values, dtype=torch.float64)
    )


def holding(layer, params):
    layer = layer.double()
    with torch.no_grad():
        layer.params.copy_(params)
    return layer


def some_points():
    z = torch.randn(16, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.cat([z, 10 * z[:4], torch.zeros(1, D, dtype=torch.float64)])


def round_trip(layer):
    """The points, their images, how far the way back misses them, and what the log-dets sum to."""
    z = some_points()
    with torch.no_grad():
        x, log_det = layer(z)
        again, log_det_back = layer.inverse(x)
    assert all(t.isfinite().all() for t in (x, log_det, again, log_det_back))
    return z, x, (again - z).norm(dim=-1), (log_det + log_det_back).abs()


def sizes_of(layer):
    """‖w‖ ‖u‖ or ‖R‖ ‖R̃‖, the smallest s, and how many roots follow on each other."""
    parts = layer.parts()
    if isinstance(layer, mf.Planar):
        w, u, _, s = parts
        return (w.norm() * u.norm()).item(), s.item(), 1
    _, r, r_tilde, _, s = parts
    return (r.norm() * r_tilde.norm()).item(), s.min().item(), layer.rank


def rounding(layer, z, x):
    """What one rounding of x may cost: ‖J⁻¹‖, here bounded, times the numbers that were added."""
    product, s, roots = sizes_of(layer)
    added = x.norm(dim=-1) + z.norm(dim=-1) + (x - z).norm(dim=-1)
    return EPS * (1 + product / min(s, 1)) ** roots * added


# --- Inverses, whatever the parameters are. ---


@pytest.mark.parametrize("activation", planar.ACTIVATIONS)
@settings(max_examples=60, deadline=None)
@given(params=vectors(2 * D + 1))
def test_a_planar_layer_comes_back_from_any_parameters(activation, params):
    layer = holding(mf.Planar(D, activation), params)
    z, x, error, _ = round_trip(layer)
    assert (error <= 1e-9 * (1 + z.norm(dim=-1)) + rounding(layer, z, x)).all()


@settings(max_examples=60, deadline=None)
@given(
    w=vectors(D),
    direction=vectors(D, st.just(1.0)),
    product=st.sampled_from([0.0, 1e-6, 1.0, 100.0]),
    b=st.floats(-5, 5),
)
def test_it_comes_back_to_1e_9_from_zero_and_huge_weights_and_at_the_floor(
    w, direction, product, b
):
    """‖w‖ from 0 to 10⁶, ‖w‖ ‖v‖ up to 100: wᵀv as low as −100, where 1 + wᵀu is at its floor."""
    v = direction * product / w.norm() if w.norm() > 1e-200 else direction
    layer = holding(mf.Planar(D), torch.cat([w, v, torch.tensor([b])]))
    z, x, error, log_dets = round_trip(layer)
    assert (error <= 1e-9 * (1 + z.norm(dim=-1) + (x - z).norm(dim=-1))).all()
    assert (log_dets <= 1e-9).all()


@settings(max_examples=60, deadline=None)
@given(params=vectors(D + 2))
def test_a_radial_layer_comes_back_to_1e_9_from_any_parameters(params):
    layer = holding(mf.Radial(D), params)
    z, x, error, _ = round_trip(layer)
    size = 1 + z.norm(dim=-1) + x.norm(dim=-1) + params.norm()
    assert (error <= 1e-9 * size).all()


@pytest.mark.parametrize("rank", [1, 2, 3])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_sylvester_layer_comes_back_from_any_parameters(rank, data):
    layer = mf.Sylvester(D, rank)
    layer = holding(layer, data.draw(vectors(layer.params.numel())))
    z, x, error, _ = round_trip(layer)
    assert (error <= 1e-9 * (1 + z.norm(dim=-1)) + rounding(layer, z, x)).all()


def test_the_bounds_of_these_tests_can_be_missed(monkeypatch):
    """Without the second look at what rounding left along w, they are."""
    w = torch.tensor([1e3, 1e3, 1e3], dtype=torch.float64)
    layer = holding(mf.Planar(D), torch.cat([w, -1e3 * w, torch.zeros(1)]))
    assert layer.parts()[3].item() == pytest.approx(FLOOR)
    assert (w @ layer.parts()[1]).item() == pytest.approx(FLOOR - 1, abs=1e-12)

    def once(v, w):
        p = (w * v).sum(-1)
        s = 1 + (1 - FLOOR) * torch.expm1(p / (1 - FLOOR))
        return v + (s - 1 - p) / w.square().sum() * w, s

    monkeypatch.setattr(planar, "invertible", once)
    assert abs((w @ layer.parts()[1]).item() - (FLOOR - 1)) > 1e-9


def test_points_at_the_hyperplane_of_a_layer_at_the_floor_come_back():
    """There a round trip is hardest: the slope is 0.001, and 0.000001 further it is still small."""
    params = torch.tensor([3.0, 0.0, 0.0, -50.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    layer = holding(mf.Planar(D), params)
    z = torch.zeros(41, D, dtype=torch.float64)
    z[:, 0] = torch.linspace(-1, 1, 41).double() ** 5
    with torch.no_grad():
        x, log_det = layer(z)
        assert log_det[20].exp() == pytest.approx(FLOOR, rel=1e-9)
        assert (layer.inverse(x)[0] - z).abs().max() < 1e-9


# --- What keeps a layer invertible. ---


@settings(max_examples=100, deadline=None)
@given(v=vectors(D, st.sampled_from([0.0, 0.1, 1.0, 10.0])), w=vectors(D))
def test_u_is_v_but_for_what_the_floor_asks_along_w(v, w):
    u, s = invertible(v, w)
    p = w @ v
    assert s >= FLOOR * (1 - 1e-12)
    assert s == pytest.approx(
        1 + p.item() if p >= 0 else FLOOR + (1 - FLOOR) * (p / (1 - FLOOR)).exp()
    )
    assert (w @ u + 1).item() == pytest.approx(s.item(), rel=1e-6, abs=1e-9 * (1 + w.norm().item()))
    if p >= 0:
        assert torch.allclose(u, v, rtol=1e-12)
    across = u - v - (w @ (u - v)) / (w @ w + 1e-300) * w
    assert across.norm() <= 1e-12 * (1 + v.norm())


def test_a_layer_starts_as_the_identity():
    z = torch.randn(5, 4)
    for layer in (mf.Planar(4), mf.Planar(4, "leaky_relu"), mf.Radial(4), mf.Sylvester(4)):
        x, log_det = layer(z)
        torch.testing.assert_close(x, z, atol=1e-6, rtol=0)
        torch.testing.assert_close(log_det, torch.zeros(5), atol=1e-6, rtol=0)


def test_where_w_is_zero_the_layer_shifts_and_every_gradient_is_finite():
    params = torch.tensor([0.0, 0.0, 0.0, 1.0, -2.0, 0.5, 0.7], dtype=torch.float64)
    layer = holding(mf.Planar(D), params)
    z = some_points().requires_grad_()
    x, log_det = layer(z)
    shift = params[3:6] * params[6].tanh()
    torch.testing.assert_close(x, z + shift)
    assert not log_det.any()
    for value in (x.sum() + log_det.sum(), sum(t.sum() for t in layer.inverse(x.detach()))):
        layer.zero_grad()
        value.backward()
        assert layer.params.grad.isfinite().all() and layer.params.grad.any()


@pytest.mark.parametrize("make", [mf.Planar, mf.Sylvester])
def test_a_root_without_its_implicit_gradient_is_noticed(make, monkeypatch):
    """As in a library whose inverse is right and teaches nothing."""
    root = planar.monotone_root
    monkeypatch.setattr(planar, "monotone_root", lambda *a: root(*a).detach())
    wrong = {finding.check for finding in check_transform(make, dims=(2,)).wrong}
    assert "gradients alive and right" in wrong


def test_a_planar_flow_learns_from_data_through_its_inverse():
    """Maximum likelihood, where each step solves for every point: the banana is within reach."""
    torch.manual_seed(0)
    banana = mf.data.Banana(sigma=1.0)
    flow = mf.planar_flow(2, layers=2)
    before = mf.paired_gap(banana, flow, banana.sample((2000,)))
    mf.fit(flow, banana.sample((2000,)), steps=150, lr=0.03)
    after = mf.paired_gap(banana, flow, banana.sample((2000,)))
    assert 0 < after.nats < before.nats / 2


# --- The three kinds and their relations. ---


def test_a_leaky_layer_is_linear_on_either_side_of_its_hyperplane():
    layer = holding(mf.Planar(2, "leaky_relu"), torch.tensor([1.0, 2.0, 0.5, 0.3, -1.0]))
    w, u, b, s = layer.parts()
    for side, slope in [(1, 1.0), (-1, 0.1)]:
        z = (-b + side * 3.0) * w / (w @ w) + 0.1 * some_points()[:5, :2].tanh()
        x, log_det = layer(z)
        torch.testing.assert_close(x, z + slope * u * ((z @ w) + b).unsqueeze(-1))
        torch.testing.assert_close(log_det, (1 + slope * (w @ u)).log().expand(5))
    assert s.item() == pytest.approx((1 + w @ u).item())


def test_a_sylvester_layer_of_rank_one_is_a_planar_layer():
    torch.manual_seed(0)
    sylvester = mf.Sylvester(D, rank=1).double()
    with torch.no_grad():
        sylvester.params.normal_()
    q, r, r_tilde, b, _ = sylvester.parts()
    w, u = (r_tilde * q.mT).flatten(), (r * q).flatten()  # already allowed: v = u where p >= 0
    if (w @ u) < 0:
        with torch.no_grad():
            sylvester.params[-3] *= -1  # the number that R is made from
        q, r, r_tilde, b, _ = sylvester.parts()
        w, u = (r_tilde * q.mT).flatten(), (r * q).flatten()
    twin = holding(mf.Planar(D), torch.cat([w, u, b]).detach())
    for one, other in zip(sylvester(some_points()), twin(some_points()), strict=True):
        torch.testing.assert_close(one, other)


def test_the_columns_of_q_are_orthonormal_and_the_triangles_triangular():
    for rank in (1, 2, 4):
        layer = mf.Sylvester(4, rank).double()
        with torch.no_grad():
            layer.params.normal_()
        q, r, r_tilde, _, s = layer.parts()
        torch.testing.assert_close(q.mT @ q, torch.eye(rank, dtype=torch.float64))
        for triangle in (r, r_tilde):
            assert torch.equal(triangle, triangle.triu()) and triangle.shape == (rank, rank)
        torch.testing.assert_close(s, 1 + (r_tilde @ r).diagonal())


def test_any_frame_is_within_reach_of_the_reflections():
    """Up to the signs of its columns: Householder's own way to a QR factorisation."""
    torch.manual_seed(0)
    wanted = torch.linalg.qr(torch.randn(4, 2, dtype=torch.float64))[0]
    normals, rest = [], wanted
    for m in range(2):  # the m-th reflection sends column m of what is left to ±e_m
        x = rest[:, m].clone()
        x[:m] = 0
        v = x.clone()
        v[m] += x.norm() * (1 if x[m] >= 0 else -1)
        normals.insert(0, v)
        rest = rest - 2 * torch.outer(v, v @ rest) / (v @ v)
    frame = mf.Sylvester(4, rank=2)._frame(torch.stack(normals))
    torch.testing.assert_close(frame.abs(), wanted.abs())


def test_a_sylvester_layer_with_a_singular_matrix_is_inverted_all_the_same():
    layer = mf.Sylvester(D).double()
    with torch.no_grad():
        layer.params.normal_()
        first = sum(layer._sizes[:4])
        layer.params[first] = 0.0  # the first number on the diagonal of R̃
    assert torch.linalg.det(layer.parts()[2]) == 0
    _, _, error, log_dets = round_trip(layer)
    assert error.max() < 1e-9 and log_dets.max() < 1e-9


def test_a_radial_layer_scales_by_s_at_its_centre_and_moves_far_points_by_beta():
    layer = holding(mf.Radial(D), torch.tensor([1.0, 2.0, 3.0, 0.3, -1.5]))
    centre, alpha, s = layer.parts()
    _, log_det = layer(centre)
    assert log_det.item() == pytest.approx(D * s.log().item())
    direction = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    x, log_det = layer(centre + 1e7 * direction)
    beta = (alpha * (s - 1)).item()
    torch.testing.assert_close(x - centre - 1e7 * direction, beta * direction, rtol=1e-5, atol=1e-6)
    assert abs(log_det.item()) < 1e-5


@pytest.mark.parametrize(
    "make",
    [
        lambda **c: mf.Planar(2, **c),
        lambda **c: mf.Radial(2, **c),
        lambda **c: mf.Sylvester(2, **c),
        lambda **c: mf.Elementwise(2, mf.Affine(), **c),
    ],
)
def test_with_a_context_a_layer_is_the_one_whose_parameters_the_network_makes(make):
    torch.manual_seed(0)
    layer, plain = make(context_dim=4, hidden=(5,)), make()
    z, context = torch.randn(7, 2), torch.randn(4)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        made = layer.params.flatten() + layer.net(context)
        plain.params.copy_(made.reshape(plain.params.shape))
    for one, other in zip(layer(z, context), plain(z), strict=True):
        torch.testing.assert_close(one, other)


# --- What a layer cannot be made of; the ready-made flows are in test_recipes.py. ---


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mf.Sylvester(2, rank=0), "from 1 to 2; got 0"),
        (lambda: mf.Planar(2, context_dim=1, hidden=(0,)), r"hidden must be .* got \(0,\)"),
        (lambda: mf.Radial(2, hidden=64), "hidden must be a tuple of whole numbers.* got 64"),
    ],
)
def test_wrong_options_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
