"""Linear maps: rotations really rotate, and standardising keeps count of its log-det."""

import copy
import math

import numpy as np
import pytest
import torch

import minflow as mf


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5])
def test_householder_is_a_rotation_and_starts_as_none(dim):
    layer = mf.Householder(dim).double()
    identity = torch.eye(dim, dtype=torch.float64)
    assert torch.allclose(layer(identity)[0], identity)
    torch.manual_seed(dim)
    torch.nn.init.normal_(layer.normals)
    columns, log_det = (value.detach() for value in layer(identity))
    assert torch.allclose(columns @ columns.mT, identity)
    assert torch.linalg.det(columns) == pytest.approx(1.0)
    assert (log_det == 0).all()
    assert dim == 1 or (columns - identity).abs().max() > 0.1


def test_householder_turns_the_plane_by_twice_the_angle_between_its_normals():
    layer, angle = mf.Householder(2).double(), 0.3
    with torch.no_grad():
        turned = [[math.cos(angle), math.sin(angle)], [1.0, 0.0]]
        layer.normals.copy_(5 * torch.tensor(turned))  # their lengths do not matter
    x, _ = layer(torch.tensor([1.0, 0.0]).double())
    assert x.tolist() == pytest.approx([math.cos(2 * angle), math.sin(2 * angle)])


def test_householder_learns_any_rotation():
    torch.manual_seed(0)
    wanted, _ = torch.linalg.qr(torch.randn(3, 3))
    wanted = wanted * torch.linalg.det(wanted)  # in three dimensions −Q turns a mirror round
    layer = mf.Householder(3)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(300):
        z = torch.randn(64, 3)
        loss = (layer(z)[0] - z @ wanted.mT).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 1e-4


class Frame:
    """As much of a pandas data frame as numpy asks for."""

    def __init__(self, rows):
        self.rows = rows

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.rows, dtype)


@pytest.mark.parametrize("make", [torch.as_tensor, np.asarray, lambda rows: rows, Frame])
def test_standardize_takes_tensors_arrays_and_lists(make):
    rows = [[1.0, 10.0], [3.0, 30.0], [2.0, 50.0]]
    layer = mf.Standardize.of(make(rows))
    z, log_det = layer.inverse(torch.tensor(rows))
    assert z.dtype == torch.float32
    assert torch.allclose(z.mean(0), torch.zeros(2), atol=1e-6)
    assert torch.allclose(z.std(0, correction=0), torch.ones(2))
    stds = np.std(rows, axis=0)
    assert log_det.tolist() == pytest.approx([-np.log(stds).sum()] * 3)


def test_standardize_in_float64_and_on_whole_numbers():
    assert mf.Standardize.of(torch.eye(2, dtype=torch.float64)).mean.dtype == torch.float64
    assert mf.Standardize.of(torch.eye(2, dtype=torch.int64)).mean.dtype == torch.float32


def test_a_flow_with_standardize_scores_in_the_units_of_the_data():
    law = torch.distributions.MultivariateNormal(
        torch.tensor([250.0, -3e4]), torch.diag(torch.tensor([40.0, 1e3]) ** 2)
    )
    data = law.sample((4000,))
    flow = mf.Flow(mf.Compose(mf.TriangularAffine(2), mf.Standardize.of(data)))
    mf.fit(flow, data, steps=200, lr=0.02)
    gap = mf.paired_gap(law, flow, law.sample((4000,)))
    assert abs(gap.nats) < 0.01
    assert flow.sample(4000).std(0).tolist() == pytest.approx([40.0, 1e3], rel=0.05)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (torch.zeros(3), r"\(N, D\); got \(3,\)"),
        (torch.zeros(0, 2), r"\(N, D\); got \(0, 2\)"),
        (torch.tensor([[1.0], [math.nan]]), "1 of 2 rows"),
        (torch.tensor([[1.0, 2.0], [3.0, 2.0]]), r"columns \[1\] of data never change"),
        (torch.ones(1, 2), r"columns \[0, 1\] of data never change in 1 rows"),
        (torch.tensor([[1.0], [1.0 + 1e-9]], dtype=torch.float64).float(), r"columns \[0\]"),
        (np.array([[0.0], [1e-60]]), "too little for torch.float32"),
    ],
)
def test_data_that_cannot_be_standardised_are_named(data, words):
    with pytest.raises(ValueError, match=words):
        mf.Standardize.of(data)


# --- ActNorm. ---


def far_data(count=500):
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([40.0, 1e-3, 1.0])
    return torch.tensor([250.0, -3e4, 0.0]) * (spread > 0.5) + spread * torch.randn(
        count, 3, generator=generator
    )


def test_after_initialize_the_batch_leaves_with_mean_0_and_deviation_1():
    layer, x = mf.ActNorm(3), far_data()
    assert not layer.initialized
    layer.initialize(x.reshape(5, 100, 3))  # any batch shape
    z, log_det = layer.inverse(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(3), atol=1e-4, rtol=0)
    wanted = -x.double().std(0, correction=0).log().sum()
    torch.testing.assert_close(log_det.double(), wanted.expand(500), atol=1e-3, rtol=0)
    assert layer.initialized and layer.shift.requires_grad and layer.shift.grad_fn is None


def test_a_second_start_changes_nothing():
    layer = mf.ActNorm(3)
    layer.initialize(far_data())
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.initialize(torch.randn(7, 3))
    layer.initialize(torch.ones(1, 3))  # which could not be a start
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_a_start_survives_a_file_and_a_state_and_is_then_not_made_again(tmp_path):
    flow = mf.Flow(mf.Compose(mf.TriangularAffine(3), mf.ActNorm(3)))
    flow.initialize(far_data())
    mf.save(flow, tmp_path / "flow")
    twin = mf.Flow(mf.Compose(mf.TriangularAffine(3), mf.ActNorm(3)))
    twin.load_state_dict(flow.state_dict())
    for again in (mf.load(tmp_path / "flow"), twin):
        again.initialize(torch.randn(50, 3))
        torch.testing.assert_close(again.log_prob(far_data()), flow.log_prob(far_data()))


def test_a_copy_and_another_dtype_keep_the_start():
    layer = mf.ActNorm(3)
    layer.initialize(far_data())
    for other in (copy.deepcopy(layer), copy.deepcopy(layer).double(), layer.to("cpu")):
        assert other.initialized and other.initialized.dtype == torch.bool
        assert torch.equal(other.shift.float(), layer.shift)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (torch.tensor([[1.0, 2.0], [3.0, 2.0]]), r"coordinates \[1\] have none in these 2 rows"),
        (torch.ones(1, 2), r"coordinates \[0, 1\] have none in these 1 rows"),
        (torch.tensor([[0.1, 1.0]] * 999 + [[0.1, 2.0]]), r"coordinates \[0\] have none"),
        (torch.zeros(0, 2), r"coordinates \[0, 1\] have none in these 0 rows"),
        (torch.tensor([[1.0, math.nan], [3.0, 2.0]]), r"coordinates \[1\]"),
    ],
)
def test_a_batch_without_spread_is_no_start_and_leaves_the_layer_as_it_was(rows, words):
    layer = mf.ActNorm(2)
    with pytest.raises(ValueError, match=words):
        layer.initialize(rows)
    assert not layer.initialized and not layer.shift.any() and not layer.log_scale.any()


def test_fit_starts_every_actnorm_in_its_place():
    x = far_data(2000)
    flow = mf.Flow(mf.Compose(mf.ActNorm(3), mf.LU(3), mf.ActNorm(3)))
    mf.fit(flow, x, steps=1, lr=1e-9)
    first, mix, last = flow.transform
    assert first.initialized and last.initialized
    y, _ = last.inverse(x)
    z, _ = first.inverse(mix.inverse(y)[0])
    for value in (y, z):
        torch.testing.assert_close(value.mean(0), torch.zeros(3), atol=0.05, rtol=0)
        torch.testing.assert_close(value.std(0), torch.ones(3), atol=0.05, rtol=0)
    assert abs(last.shift[0].item() - 250) < 5 and abs(first.shift).max() < 0.05


# --- LU and Permute. ---


@pytest.mark.parametrize("dim", [1, 2, 3, 6])
def test_an_lu_layer_is_its_matrix_with_its_determinant_and_its_inverse(dim):
    torch.manual_seed(dim)
    layer = mf.LU(dim).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    matrix, points = layer.matrix().detach(), torch.randn(4, 7, dim).double()
    x, log_det = (value.detach() for value in layer(points))
    torch.testing.assert_close(x, points @ matrix.mT)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(matrix).logabsdet.expand(4, 7))
    again, log_det_back = (value.detach() for value in layer.inverse(x))
    torch.testing.assert_close(again, torch.linalg.solve(matrix, x.unsqueeze(-1)).squeeze(-1))
    assert torch.equal(log_det_back, -log_det)
    lower, upper = layer.factors()
    assert torch.equal(lower, lower.tril()) and torch.equal(upper, upper.triu())
    assert (lower.diagonal() == 1).all() and (upper.diagonal() > 0).all()


def test_an_lu_layer_starts_as_a_permutation_which_is_in_its_state():
    torch.manual_seed(0)
    layer, twin = mf.LU(6), mf.LU(6)
    assert not torch.equal(layer.order, twin.order)
    z = torch.randn(5, 6)
    torch.testing.assert_close(layer(z)[0], z[:, layer.order])
    twin.load_state_dict(layer.state_dict())
    assert torch.equal(twin(z)[0], layer(z)[0])


def test_log_diagonals_of_an_lu_layer_are_bounded():
    layer = mf.LU(2)
    with torch.no_grad():
        layer.raw_log_diagonal.copy_(torch.tensor([1e6, -1e6]))
    diagonal = layer.factors()[1].diagonal().detach()
    assert diagonal.log().tolist() == pytest.approx([5.0, -5.0])


@pytest.mark.parametrize(
    "order", [[2, 0, 1], (2, 0, 1), torch.tensor([2, 0, 1]), np.array([2, 0, 1])]
)
def test_a_permutation_takes_an_order_of_any_kind_and_is_undone(order):
    layer, z = mf.Permute.of(order), torch.tensor([[10.0, 20.0, 30.0]])
    x, log_det = layer(z)
    assert x.tolist() == [[30.0, 10.0, 20.0]] and log_det.tolist() == [0.0]
    again, log_det_back = layer.inverse(x)
    assert torch.equal(again, z) and log_det_back.tolist() == [0.0]


def test_every_order_is_drawn_and_a_twin_takes_it_over(tmp_path):
    torch.manual_seed(0)
    seen = {tuple(mf.Permute(3).order.tolist()) for _ in range(100)}
    assert len(seen) == 6
    layer, twin = mf.Permute(20), mf.Permute(20)
    z = torch.randn(4, 20)
    assert not torch.equal(layer(z)[0], twin(z)[0])
    twin.load_state_dict(layer.state_dict())
    assert torch.equal(layer(z)[0], twin(z)[0])
    flow = mf.Flow(mf.Compose(mf.TriangularAffine(20), layer))
    mf.save(flow, tmp_path / "flow")
    again = mf.load(tmp_path / "flow")
    assert torch.equal(again.transform.transforms[1].order, layer.order)
    assert copy.deepcopy(layer).double().order.dtype == torch.int64


@pytest.mark.parametrize("order", [[0, 0], [1, 2], [0, 1, -1], [0.5, 1.0], "ab", [[0, 1]]])
def test_what_is_no_order_is_named(order):
    with pytest.raises(ValueError, match="order must hold each of 0, …, D − 1 once; got "):
        mf.Permute.of(order)
    with pytest.raises(ValueError, match="dim must be a whole number, at least 1; got 0"):
        mf.Permute.of([])


# --- TriangularAffine.of. ---


def test_a_triangular_layer_of_data_is_the_best_normal_law_for_them():
    torch.manual_seed(0)
    data = torch.randn(500, 3).double() @ torch.randn(3, 3).double() + 7
    layer = mf.TriangularAffine.of(data)
    mean, covariance = data.mean(0), data.mT.cov(correction=0)
    law = torch.distributions.MultivariateNormal(mean, covariance)
    flow = mf.Flow(layer)
    torch.testing.assert_close(flow.log_prob(data), law.log_prob(data))
    assert all(p.requires_grad for p in layer.parameters())
    z = flow.normalize(data)
    torch.testing.assert_close(z.mT.cov(correction=0), torch.eye(3).double())


def test_a_triangular_layer_of_data_takes_their_dtype_and_does_without_a_batch_of_tensors():
    rows = [[1.0, 2.0], [3.0, 1.0], [0.0, 5.0]]
    assert mf.TriangularAffine.of(rows).shift.dtype == torch.float32
    assert mf.TriangularAffine.of(torch.tensor(rows).double()).shift.dtype == torch.float64
    one = mf.TriangularAffine.of([[1.0], [5.0]])
    assert one.shift.item() == 3 and one.matrix().item() == pytest.approx(2)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (torch.randn(5), r"shape \(N, D\); got \(5,\)"),
        (torch.tensor([[1.0, math.nan]]), "1 of 1 rows of data hold NaN"),
        (torch.tensor([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]), "covariance of these 3 rows"),
        (torch.tensor([[1.0, 5.0], [2.0, 5.0], [4.0, 5.0]]), "covariance of these 3 rows"),
        (1e4 * torch.eye(3), "between e.-5 and e.5"),
    ],
)
def test_data_without_a_best_normal_law_are_refused(data, words):
    with pytest.raises(ValueError, match=words):
        mf.TriangularAffine.of(data)
