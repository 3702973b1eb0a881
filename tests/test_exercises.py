"""Exercises: what `check` promises to readers, held for every exercise of every chapter."""

import inspect
import json
import math
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

import minflow
from minflow.exercises import Equal, Exercise, Measured, Mistake, chapter, chapters

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "minflow" / "exercises" / "README.md"
EVERY = [
    pytest.param(name, n, id=f"{name}-{n}")
    for name in chapters()
    for n in range(1, len(chapter(name).exercises) + 1)
]
every_exercise = pytest.mark.parametrize(("name", "n"), EVERY)


@pytest.fixture(autouse=True)
def progress_file(tmp_path, monkeypatch):
    path = tmp_path / "progress.json"
    monkeypatch.setenv("MINFLOW_PROGRESS", str(path))
    return path


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# The promises. Each is a function, so that broken exercises can be held against it below.


def stubs_are_not_attempted(exercise):
    def unwritten(*_):
        raise NotImplementedError

    stubs = [..., None, unwritten]
    if getattr(exercise.judge, "call", None) is None:
        stubs += [lambda *_: ..., lambda *_: None]
    if getattr(exercise.judge, "parts", ()):
        stubs += [(...,) * len(exercise.judge.parts)]
    for stub in stubs:
        verdict = exercise.check(stub)
        assert verdict.state == "not attempted", f"a stub is {verdict}"


def in_other_clothes(exercise):
    """The reference in float32, and giving arrays and lists: for answers that are functions."""

    def changed(change):
        def answer(*case):
            made = exercise.reference(*case)
            return tuple(map(change, made)) if isinstance(made, tuple) else change(made)

        return answer

    def half_precise(*case):
        case = [a.float() if isinstance(a, torch.Tensor) else a for a in case]
        return changed(lambda made: torch.as_tensor(made).float())(*case)

    judge = exercise.judge
    if isinstance(judge, Equal) and judge.cases is not None and judge.call is None:
        yield half_precise
        yield changed(lambda made: torch.as_tensor(made).numpy())
        yield changed(lambda made: torch.as_tensor(made).tolist())


def honest_answers_pass(exercise):
    assert exercise.variants, "no honest variant is registered"
    for answer in (exercise.reference, *exercise.variants, *in_other_clothes(exercise)):
        verdict = exercise.check(answer)
        assert verdict.state == "correct", f"an honest answer is {verdict}"
        assert verdict.message == exercise.insight


def mistakes_are_named(exercise):
    assert exercise.mistakes, "no usual mistake is registered"
    for mistake in exercise.mistakes:
        for answer in (mistake.answer, *mistake.also):
            verdict = exercise.check(answer)
            assert verdict.state == "wrong", f"a mistake is {verdict}"
            assert verdict.message == mistake.says, f"{mistake.says!r} is answered by {verdict}"
    said = [mistake.says for mistake in exercise.mistakes]
    assert len(set(said)) == len(said), "two mistakes share a message"


def shown_solution_passes(exercise, source):
    notebook = {"torch": torch, "math": math, "np": np, "mf": minflow}
    exec(source, notebook)
    verdict = exercise.check(notebook[exercise.reference.__name__])
    assert verdict.state == "correct", verdict


@every_exercise
def test_a_stub_is_not_attempted(name, n, progress_file):
    stubs_are_not_attempted(chapter(name).exercises[n - 1])
    chapter(name).check(n, ...)
    assert not progress_file.exists()


@every_exercise
def test_honest_answers_are_correct(name, n):
    honest_answers_pass(chapter(name).exercises[n - 1])


@every_exercise
def test_each_usual_mistake_gets_its_own_message(name, n):
    mistakes_are_named(chapter(name).exercises[n - 1])


@every_exercise
def test_the_shown_solution_passes_by_itself(name, n):
    ex = chapter(name)
    fold = ex.solution(n)
    shown_solution_passes(ex.exercises[n - 1], fold.code)
    assert max(map(len, fold.code.splitlines())) <= 65, "it would scroll on a phone"


class Balance(HTMLParser):
    """Fails on a tag that is not closed where it should be; keeps the words."""

    def __init__(self):
        super().__init__()
        self.open, self.words, self.tags = [], "", []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.append(tag)
        assert "color:" not in str(dict(attrs).get("style")).replace("color:inherit", "")

    def handle_endtag(self, tag):
        if tag != "path":
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.words += data


def read_html(shown):
    html = shown._repr_html_()
    parser = Balance()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    assert "$" not in html, "maths markup would be typeset, or not, as the place has it"
    return parser


@every_exercise
def test_hints_and_solution_are_folded_and_spoil_nothing_as_text(name, n):
    ex = chapter(name)
    exercise = ex.exercises[n - 1]
    hint, solution = ex.hint(n), ex.solution(n)
    assert read_html(hint).tags.count("details") == 2
    assert read_html(solution).tags.count("details") == 1
    assert inspect.getsource(exercise.reference).strip() in read_html(solution).words
    assert hint.text == exercise.hints[0]
    assert hint.more.text == exercise.hints[1]
    for fold, hidden in ((hint, exercise.hints), (solution, (exercise.why, solution.code))):
        assert repr(fold) == str(fold)
        assert "open the fold" in repr(fold)
        assert not any(words in repr(fold) for words in hidden)
    assert hint._repr_html_() == chapter(name).hint(n)._repr_html_()
    assert solution._repr_html_() == chapter(name).solution(n)._repr_html_()


@every_exercise
def test_the_texts_are_all_there(name, n):
    exercise = chapter(name).exercises[n - 1]
    assert exercise.level in ("easy", "medium", "hard")
    assert exercise.kind in ("predict", "derive", "code", "explore", "debug")
    assert len(exercise.hints) == 2
    for words in (exercise.title, exercise.insight, exercise.why, *exercise.hints):
        assert words == words.strip()
        assert words
    for mistake in exercise.mistakes:
        assert mistake.says[0] == mistake.says[0].lower(), "it follows 'wrong, because'"


@pytest.mark.parametrize("name", chapters())
def test_a_chapter_has_eight_exercises_of_every_level_and_a_bug(name):
    exercises = chapter(name).exercises
    assert len(exercises) >= 8
    assert {e.level for e in exercises} == {"easy", "medium", "hard"}
    assert "debug" in {e.kind for e in exercises}
    assert len({e.title for e in exercises}) == len(exercises)


# What the exercises say about mathematics, against others' word for it.


def test_the_numbers_of_chapter_1_agree_with_torch_and_scipy():
    from minflow.exercises import change_of_variables as ch1

    wide, standard = torch.distributions.Normal(-2.0, 5.0), torch.distributions.Normal(0.0, 1.0)
    kl = torch.distributions.kl_divergence
    truth = kl(wide, standard).item(), kl(standard, wide).item()
    assert ch1.both_kls() == pytest.approx(truth, abs=1e-5)

    lognormal = torch.distributions.LogNormal(1.0, 0.5).entropy().item()
    logistic = scipy.stats.logistic.entropy()
    assert ch1.two_entropies() == pytest.approx((lognormal, logistic), abs=1e-5)

    def cross_entropy(s):
        return scipy.stats.norm.expect(lambda z: -scipy.stats.logistic.logpdf(z, scale=s))

    best = scipy.optimize.minimize_scalar(cross_entropy, bounds=(0.3, 1), method="bounded").x
    assert ch1.best_logistic_scale() == pytest.approx(best, abs=1e-5)
    left = cross_entropy(best) - scipy.stats.norm.entropy()
    assert left == pytest.approx(0.0095, abs=5e-5)  # what the insight says

    x = torch.randn(50, generator=torch.Generator().manual_seed(0)).double()
    u, statistic = ch1.pit_ks(x, ch1.normal_cdf)
    truth = scipy.stats.kstest(x.numpy(), "norm")
    assert statistic == pytest.approx(truth.statistic, abs=1e-6)
    np.testing.assert_allclose(u, scipy.stats.norm.cdf(x))

    grid = torch.linspace(0.01, 9, 40).double()
    np.testing.assert_allclose(ch1.square_density(grid), scipy.stats.chi2.pdf(grid, 1))
    assert ch1.slope_at_zero(3, 0.5) == pytest.approx(33e6, rel=0.02)  # what the insight says


def test_the_numbers_of_chapter_2_agree_with_scipy_and_samples():
    from minflow.exercises import jacobian as ch2

    area, log_factor = ch2.disc_image()
    angle = np.linspace(0, 2 * np.pi, 100_001)
    edge = np.array([[1.0, 2.0], [3.0, 1.0]]) @ [np.cos(angle), np.sin(angle)]
    shoelace = abs(np.sum(edge[0, :-1] * edge[1, 1:] - edge[0, 1:] * edge[1, :-1])) / 2
    assert area.item() == pytest.approx(shoelace, rel=1e-6)
    assert log_factor.item() == pytest.approx(math.log(shoelace / math.pi), abs=1e-6)

    L = np.array([[2.0, 0, 0], [5, 3, 0], [-1, 4, 0.5]])
    of_normal, of_uniform = ch2.two_entropies()
    assert of_normal.item() == pytest.approx(scipy.stats.multivariate_normal(cov=L @ L.T).entropy())
    assert of_uniform.item() == pytest.approx(np.log(np.linalg.det(L)))

    J = np.array([[2.0, 1, 0, 0], [1, 3, 0, 0], [7, -4, 0, 2], [9, 5, -1, 6]])
    det, back = ch2.two_blocks()
    assert det.item() == pytest.approx(np.linalg.det(J))
    assert back.item() == pytest.approx(np.linalg.slogdet(np.linalg.inv(J))[1])

    def chained(maps, z, h=1e-6):
        def f(z):
            for each in maps:
                z = each(z)
            return np.array(z)

        columns = [(f(z + h * e) - f(z - h * e)) / (2 * h) for e in np.eye(2)]
        return np.linalg.slogdet(np.stack(columns, -1))[1]

    maps = [lambda z: (z[0], z[1] * np.exp(z[0])), lambda y: (y[0] + y[1] ** 2, 3 * y[1])]
    truth = [chained(order, np.array([1.0, 2.0])) for order in (maps, maps[::-1])]
    assert [t.item() for t in ch2.both_orders()] == pytest.approx(truth, abs=1e-4)

    volume, area = ch2.ellipsoid()
    inside = scipy.integrate.quad(lambda h: math.pi * (1 - h**2 / 4), -2, 2)[0]
    turned = scipy.integrate.quad(  # a surface of revolution: 2π r ds
        lambda t: 2 * math.pi * math.sin(t) * math.hypot(math.cos(t), 2 * math.sin(t)), 0, math.pi
    )[0]
    assert volume == pytest.approx(inside)
    assert area == pytest.approx(turned, rel=1e-4)
    closed = 2 * math.pi * (1 + 4 * math.pi / (3 * math.sqrt(3)))  # what the solution says
    assert [closed, ch2._AREA] == pytest.approx([turned, turned])
    half_way_round = scipy.integrate.quad(  # an ellipse with the half-axes 1 and 2
        lambda t: math.hypot(math.cos(t), 2 * math.sin(t)), 0, math.pi
    )[0]
    assert pytest.approx(2 * math.pi * half_way_round, abs=1e-3) == ch2._WITHOUT_SINE


def test_the_maps_of_chapter_2_do_what_they_say():
    from minflow.exercises import jacobian as ch2

    generator = torch.Generator().manual_seed(0)
    u = torch.rand(20_000, 2, generator=generator).double()
    x, log_det = ch2.uniform_disc(u)
    # A uniform law on the disc: the squared radius and the angle are uniform, and independent.
    square, angle = x.square().sum(-1).numpy(), torch.atan2(x[:, 1], x[:, 0]).numpy()
    assert scipy.stats.kstest(square, "uniform").pvalue > 0.001
    assert scipy.stats.kstest(angle / (2 * math.pi) + 0.5, "uniform").pvalue > 0.001
    assert abs(scipy.stats.spearmanr(square, angle).statistic) < 0.03
    np.testing.assert_allclose(log_det, np.log(np.pi))

    x = torch.randn(50, 2, generator=generator).double()
    z, log_det = ch2.inverse_and_log_det(x)

    def f(z):
        y2 = z[..., 1] * z[..., 0].exp()
        return torch.stack([z[..., 0] + y2.sin(), y2], -1)

    np.testing.assert_allclose(f(z), x, atol=1e-12)
    J = [torch.autograd.functional.jacobian(f, point) for point in z]
    np.testing.assert_allclose(log_det, -torch.linalg.slogdet(torch.stack(J)).logabsdet)

    correlated = torch.tensor([[1.0, 0.9], [0.9, 1.0]]).double()
    price = ch2.excess_nats(correlated, torch.eye(2).double()).item()
    assert price == pytest.approx(-0.5 * math.log(1 - 0.9**2))  # what the insight says
    assert price == pytest.approx(0.830, abs=5e-4)  # what the solution says

    balls = {d: ch2.log_volume(torch.eye(d).double()).exp().item() for d in range(1, 101)}
    assert balls[5] == max(balls.values()) == pytest.approx(5.26, abs=0.005)  # so says the insight
    assert balls[100] < 1e-39
    cube = 2 * torch.rand(200_000, 3, generator=generator).double() - 1
    share = (cube.square().sum(-1) <= 1).double().mean().item()
    assert balls[3] == pytest.approx(8 * share, abs=0.04)


def test_the_numbers_of_chapter_4_agree_with_autograd_and_linear_algebra():
    from minflow.exercises import planar as ch4

    z, w = torch.tensor([3.0, 1.0]).double(), torch.tensor([1.0, -2.0]).double()
    u, b = torch.tensor([1.5, -0.5]).double(), math.log(2) - 1

    def f(z):
        return z + u * torch.tanh(w @ z + b)

    J = torch.autograd.functional.jacobian(f, z)
    truth = (*f(z).tolist(), torch.linalg.slogdet(J).logabsdet.item())
    assert [part.item() for part in ch4.planar_by_hand()] == pytest.approx(truth, abs=1e-5)

    u, w = torch.tensor([2.0, -1.0, 1.0]), torch.tensor([1.0, 2.0, 4.0])
    whole = torch.eye(3) + torch.outer(u, w)
    truth = torch.linalg.det(whole).item(), torch.linalg.inv(whole)[0, 1].item()
    assert [part.item() for part in ch4.lemma_by_hand()] == pytest.approx(truth, abs=1e-5)

    line = torch.arange(-600, 601).double() / 100
    z = torch.cartesian_prod(line, line)
    lowest, one_to_one = [], 0
    for w, u in [((2, 1), (1, -2.5)), ((1, -1), (2, 0.5)), ((3, 0), (-0.5, 9)), ((1, 2), (1, -1))]:
        w, u = torch.tensor(w).double(), torch.tensor(u).double()
        slope = torch.cosh(z @ w) ** -2  # J = I + slope · u wᵀ, entry by entry
        J = [[(i == j) + slope * u[i] * w[j] for j in range(2)] for i in range(2)]
        lowest.append((J[0][0] * J[1][1] - J[0][1] * J[1][0]).min().item())
        along = torch.outer(line, w / (w @ w))  # from one line of equal a to the next
        image = (along + torch.outer(torch.tanh(along @ w), u)) @ w
        one_to_one += bool((image.diff() > 0).all())
    assert [part.item() for part in ch4.smallest_determinants()] == pytest.approx(
        [*lowest, one_to_one], abs=1e-5
    )


def test_the_numbers_of_chapter_4_agree_with_sums_and_samples():
    from minflow.exercises import planar as ch4

    target, x2 = minflow.data.U4(sigma=2.0), torch.linspace(-8, 5, 651).double()

    def mass(log_density, L):
        x1 = torch.linspace(-L, L, 801).double()
        heights = log_density(torch.cartesian_prod(x1, x2)).exp().reshape(len(x1), len(x2))
        return torch.trapezoid(torch.trapezoid(heights, x2), x1).item()

    bare = [mass(lambda x: -target.energy(x), L) for L in (4, 8)]
    enclosed = mass(target.log_unnormalized, 16)
    truth = bare[0], bare[1] / bare[0], enclosed
    assert ch4.wave_masses() == pytest.approx(truth, rel=1e-6)
    assert truth == pytest.approx((15.04, 2, 1.880), abs=5e-4 * 15)  # what the solution says
    assert math.log(enclosed) == pytest.approx(target.log_normalizer, abs=1e-6)
    assert math.log(enclosed) == pytest.approx(0.631, abs=5e-4)

    log_Z, runs = 1.50, {1: (-1.5001, 0.0002), 2: (-1.712, 0.009), 3: (-0.8069, 0.0001)}
    kl, bound, impossible, lost_a_mode = ch4.read_a_loss()
    assert (kl, bound) == pytest.approx((log_Z - 1.30, 1.30))
    gaps = {run: loss + log_Z for run, (loss, _) in runs.items()}
    assert [run for run, (_, error) in runs.items() if gaps[run] < -3 * error] == [impossible]
    assert gaps[lost_a_mode] == pytest.approx(math.log(2), abs=runs[lost_a_mode][1])
    # Is run 1 possible? Where q is nearly p, KL is half the variance of log q − log p.
    assert abs(gaps[1] - 10_000 * runs[1][1] ** 2 / 2) < 2 * runs[1][1]
    # And run 3? A normal law that is 0.7 % too wide for one of two equal modes ends like it.
    mode, other = torch.distributions.Normal(5.0, 0.5), torch.distributions.Normal(-5.0, 0.5)
    q = torch.distributions.Normal(5.0, 0.5 * 1.007)
    noise = torch.randn(10_000, generator=torch.Generator().manual_seed(0)).double()
    x = q.mean + q.stddev * noise
    log_p = torch.logaddexp(mode.log_prob(x), other.log_prob(x)) - math.log(2)
    ratio = q.log_prob(x) - log_p
    assert ratio.std().item() / 100 == pytest.approx(runs[3][1], rel=0.1)
    assert ratio.mean().item() == pytest.approx(gaps[3], abs=3 * runs[3][1])


@pytest.mark.parametrize("p", [-2000.0, -1.0, 0.0, 2000.0])
def test_the_debugged_layer_of_chapter_4_has_no_third_bug_in_its_gradients(p):
    from minflow.exercises import planar as ch4

    w = torch.tensor([1.0, 2.0]).double().requires_grad_()
    v = (p * w.detach() / 5).requires_grad_()  # wᵀv = p
    z, b = torch.tensor([[0.3, 0.1], [-1.0, 2.0]]).double(), torch.tensor(-0.5).double()
    x, log_det = ch4.mended_layer(z, w, v, b)
    gradients = torch.autograd.grad(x.sum() + log_det.sum(), (w, v))
    assert all(g.isfinite().all() for g in gradients)
    # As shown, it has two: each is in the values.
    shown_x, shown_log_det = ch4.broken_layer(z, w, v, b)
    assert torch.allclose(shown_x, x) == (p >= 0)
    assert torch.allclose(shown_log_det, log_det) == (p >= 0)
    gradients = torch.autograd.grad(shown_x.sum(), (w, v))
    assert all(g.isfinite().all() for g in gradients)


# The three verdicts, on exercises made for it.


def doubled(x):
    return 2 * x


def toy(**changes):
    entries = {
        "title": "Twice x",
        "level": "easy",
        "kind": "code",
        "reference": doubled,
        "judge": Equal(
            cases=lambda rng: [(rng.normal(size=4),), (np.array(1.5),), (np.array([3.0, -1.0]),)],
            curve=(-1.0, 1.0, lambda x: (x,)),
        ),
        "insight": "Twice is once more.",
        "hints": ("Add.", "x + x."),
        "why": "2x = x + x.",
        "mistakes": (Mistake(lambda x: x**2, "you square x."),),
        "variants": (lambda x: x + x,),
    }
    return Exercise(**(entries | changes))


def test_a_wrong_answer_is_shown_the_smallest_input_on_which_it_fails():
    verdict = toy().check(lambda x: x + 1)
    assert verdict.state == "wrong"
    assert verdict.message == "3 was expected, and 2.5 came, on x = 1.5."
    only_negative = toy().check(lambda x: 2 * x.abs())
    assert only_negative.message == ("-2 was expected at entry [1], and 2 came, on x = [3, -1].")


def raises(x):
    raise ValueError("no <b>way</b>\nand more")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (raises, "your function raised ValueError: no <b>way</b>, on x = 1.5."),
        (lambda x: x.sum() * 2 + torch.zeros(2), "the shape should be (), and yours is (2,), on x"),
        (lambda x: "3", "numbers are expected, not str, on x = 1.5."),
        (lambda x: 2 * x if x.dim() else None, "your answer gives nothing (`None`), on x = 1.5."),
        (lambda x: x * 2.0004, "3 was expected, and 3.0006 came, on x = 1.5."),
        (lambda x: x * math.nan, "3 was expected, and nan came, on x = 1.5."),
        (lambda: 1, "your function raised TypeError: "),
        (7.0, "a function of (x) is expected, not float."),
    ],
)
def test_what_went_wrong_is_said(answer, says):
    verdict = toy().check(answer)
    assert verdict.state == "wrong"
    assert says in verdict.message
    assert str(verdict).startswith("wrong, because " + says)
    assert "<b>" not in read_html(verdict).tags


def test_two_numbers_that_differ_are_shown_to_differ():
    strict = toy(judge=Equal(cases=lambda rng: [(np.array(1.5),)], tol=1e-7))
    assert strict.check(lambda x: x * 2.000001).message == (
        "3 was expected, and 3.0000015 came, on x = 1.5."
    )


def test_the_arguments_are_the_answers_own_and_the_random_state_the_readers():
    def careless(x):
        torch.rand(3)
        x *= 2
        return x

    kept = np.array([1.0, 3.0])  # an author's array, the same one at each check
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert toy(judge=Equal(cases=lambda rng: [(kept,)])).check(careless).state == "correct"
    assert kept.tolist() == [1.0, 3.0]
    assert torch.equal(torch.get_rng_state(), before)


def test_an_answer_may_want_float32_or_numpy():
    weight = torch.tensor([[2.0]])  # float32

    def by_matrix(x):
        return (x.reshape(-1, 1) @ weight).reshape(x.shape)

    with pytest.raises(RuntimeError, match=r"dtype|Double"):
        by_matrix(torch.ones(2).double())
    assert toy().check(by_matrix).state == "correct"
    assert toy().check(lambda x: x.astype(np.float32) * 2).state == "correct"


def test_a_wrong_curve_is_drawn_and_described():
    verdict = toy().check(lambda x: x + 1)
    tags = read_html(verdict).tags
    assert tags.count("path") == 3  # the axes, what was expected, what came
    assert 'role="img" aria-label="Curves over x from -1 to 1' in verdict.picture
    assert "#D55E00" in verdict.picture
    assert "#009E73" in verdict.picture
    assert "<svg" not in str(verdict)
    assert not toy().check(doubled).picture


def test_a_number_that_is_wrong_is_not_told_the_right_one():
    number = toy(reference=lambda: (1.25, 2.0), judge=Equal(parts=("the mean", "the sd"), tol=0.01))
    assert number.check((1.25, 2)).state == "correct"
    assert number.check([1.255, 2.0]).state == "correct"
    assert number.check((1.25, 2.5)).message == "2.5 is too high for the sd."
    assert number.check((1.0, 2.0)).message == "1 is too low for the mean."
    expected = "2 values are expected (the mean, the sd), not 1."
    assert number.check(1.25).message == expected
    assert number.check((1.25, ...)).state == "not attempted"


def test_nan_is_called_no_number():
    number = toy(reference=lambda: 1.25, judge=Equal())
    assert number.check(math.nan).message == "your answer is nan, not a number."
    pair = toy(reference=lambda: (1.25, 2.0), judge=Equal(parts=("the mean", "the sd")))
    assert pair.check((1.25, math.nan)).message == "the sd is nan, not a number."


def test_a_mistake_in_a_part_of_the_answer_is_named_with_the_part():
    exercise = toy(
        reference=lambda: (1.0, 2.0),
        judge=Equal(parts=("a", "b")),
        mistakes=(Mistake((-1.0, -2.0), "the sign is flipped."), Mistake((1.0, 4.0), "4 is b².")),
        variants=((1, 2),),
    )
    mistakes_are_named(exercise)
    assert exercise.check((1, -2)).message == "for b: the sign is flipped."
    assert exercise.check((-1, 4)).message == "for a: the sign is flipped."
    assert exercise.check((-1, 7)).message == "for a: the sign is flipped."
    assert exercise.check((7, 4)).message == "7 is too high for a."
    assert exercise.check((1.0,)).message == "2 values are expected (a, b), not 1."


def test_an_answer_that_raises_as_a_mistake_does_has_made_it():
    def root(x):
        return math.sqrt(x) if x.dim() == 0 else x.sqrt()

    def by_power(x):
        if x.dim() == 0 and x < 0:
            raise ValueError("another text")
        return x**0.5

    exercise = toy(
        judge=Equal(cases=lambda rng: [(np.array(4.0),), (np.array(-1.0),)]),
        reference=lambda x: x.abs().sqrt(),
        mistakes=(Mistake(root, "the absolute value is missing."),),
    )
    named = "the absolute value is missing."
    assert exercise.check(root).message == exercise.check(by_power).message == named
    assert "raised TypeError" in exercise.check(lambda x: root(x) if x > 0 else x + "1").message
    assert "4 came" in exercise.check(lambda x: x if x > 0 else root(x)).message

    def always(text):
        def answer(x):
            raise ValueError(text)

        return answer

    told = toy(mistakes=(Mistake(always("one"), "it raises one."),))
    assert told.check(always("one")).message == "it raises one."
    assert told.check(always("two")).message.startswith("your function raised ValueError: two")
    assert told.check(lambda x: 3 * x).message == "3 was expected, and 4.5 came, on x = 1.5."


@pytest.mark.parametrize(
    ("answer", "help_"),
    [
        (lambda x: math.exp(x), "`torch.exp` tensors"),
        (lambda x: x * torch.log(2.0), "for plain numbers there are `abs`, `math.log`"),
        (lambda x: 2 * x if x > 0 else x, "`torch.where` for each"),
    ],
)
def test_usual_errors_of_torch_come_with_help(answer, help_):
    exercise = toy(judge=Equal(cases=lambda rng: [(rng.normal(size=4),)]))
    verdict = exercise.check(answer)
    assert verdict.message.startswith("your function raised ")
    assert help_ in verdict.message


def test_a_choice_is_read_whatever_its_case():
    choice = toy(reference=lambda: "b", judge=Equal(options="abc"))
    for right in ("B", " (b) ", "b) as before", "(b) as before"):
        assert choice.check(right).state == "correct"
    for word in ("because", "ab", "", "?"):
        assert choice.check(word).message == "an answer is one of a, b, c."
    assert choice.check("a").message == "it is not a."
    assert choice.check("z").message == choice.check(2).message == "an answer is one of a, b, c."


def test_a_transform_class_is_judged_by_what_it_computes():
    class Shift(minflow.Transform):
        def __init__(self, dim, by=1.0):
            super().__init__(dim)
            self.by = by

        def forward(self, z, context=None):
            return z + self.by, z.new_zeros(z.shape[:-1])

        def inverse(self, x, context=None):
            return x - self.by, x.new_zeros(x.shape[:-1])

    class WrongWay(Shift):
        def inverse(self, x, context=None):
            return self.forward(x)

    class Unwritten(Shift):
        def inverse(self, x, context=None):
            raise NotImplementedError

    exercise = toy(
        reference=Shift,
        judge=Equal(
            cases=lambda rng: [(rng.normal(size=(3, 2)),)],
            parts=("z", "log_det"),
            call=lambda made, x: made(2).inverse(x),
        ),
        mistakes=(Mistake(WrongWay, "you go forward."),),
    )
    assert exercise.check(Shift).state == "correct"
    assert exercise.check(WrongWay).message == "you go forward."
    assert exercise.check(Unwritten).state == exercise.check(...).state == "not attempted"
    assert "for z" in exercise.check(lambda dim: Shift(dim, 3.0)).message


def test_a_measured_answer_is_told_its_measure():
    exercise = toy(
        reference=lambda: 3.0,
        judge=Measured(lambda made: made + 0.5, lambda m: None if m > 3 else f"{m} is too small."),
        mistakes=(Mistake(lambda: -1.0, "it is negative.", when=lambda m: m < 0),),
    )
    assert exercise.check(3.0).state == exercise.check(lambda: 3.0).state == "correct"
    assert exercise.check(1.0).message == "1.5 is too small."
    assert exercise.check(-1.0).message == "it is negative."
    assert exercise.check("x").message.startswith("measuring it raised TypeError: ")
    judge = Measured(lambda made: "it has no measure.", lambda m: None)
    assert toy(judge=judge).check(3.0).message == "it has no measure."


def test_what_is_no_flow_on_the_line_is_told_in_words():
    (fit,) = (e for e in chapter("change_of_variables").exercises if isinstance(e.judge, Measured))
    flow = minflow.Flow(minflow.Elementwise(2, minflow.MixtureCDF()))
    assert fit.check(flow).message == "the target has dim 1, your flow dim 2."
    assert "hand in `mf.Flow(transform)`" in fit.check(flow.transform).message
    history = minflow.fit(flow, torch.randn(20, 2), steps=1)
    assert "hand in the flow itself" in fit.check(history).message
    assert fit.check("x").message == "a trained mf.Flow is expected, not str."
    # A density far away still has the area 1: it is badly trained, and no more.
    far = minflow.Flow(minflow.Elementwise(1, minflow.Affine()))
    torch.nn.init.constant_(far.transform.params[0], 40.0)
    assert fit.check(far).message.startswith("one normal would do better")


# The promises can fail: broken exercises are caught.


@pytest.mark.parametrize(
    ("promise", "broken"),
    [
        (mistakes_are_named, {"mistakes": (Mistake(lambda x: x + x, "this is no mistake."),)}),
        (mistakes_are_named, {"mistakes": ()}),
        (mistakes_are_named, {"judge": Equal(cases=lambda rng: [(np.array(2.0),)])}),
        (mistakes_are_named, {"judge": Measured(lambda made: 0, lambda m: None)}),
        (
            mistakes_are_named,
            {"mistakes": (Mistake(lambda x: -2 * x, "one."), Mistake(lambda x: x * -2, "two."))},
        ),
        (honest_answers_pass, {"variants": (lambda x: 2 * x + 0.01,)}),
        (honest_answers_pass, {"variants": ()}),
        (honest_answers_pass, {"reference": lambda x: None}),
        (honest_answers_pass, {"judge": Equal(cases=lambda rng: [(rng.normal(size=2),)], tol=0.0)}),
        (
            stubs_are_not_attempted,
            {"judge": Equal(cases=lambda rng: [(np.ones(2),)], call=lambda made, x: 2 * x)},
        ),
    ],
)
def test_a_broken_exercise_is_caught(promise, broken):
    promise(toy())
    with pytest.raises(AssertionError):
        promise(toy(**broken))


def test_a_solution_that_leans_on_its_module_is_caught():
    shown_solution_passes(toy(), inspect.getsource(doubled))
    with pytest.raises(AssertionError):
        shown_solution_passes(toy(), "def doubled(x):\n    return _elsewhere(x)\n")


def test_the_authors_guide_shows_an_exercise_that_keeps_the_promises():
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    (entry,) = (block for block in blocks if "DOUBLED = Exercise(" in block)
    names = {"torch": torch, "np": np, "Exercise": Exercise, "Equal": Equal, "Mistake": Mistake}
    exec(entry, names)
    for promise in (stubs_are_not_attempted, honest_answers_pass, mistakes_are_named):
        promise(names["DOUBLED"])


# A chapter's four verbs, and what exists.


def test_what_does_not_exist_is_said_with_what_does():
    with pytest.raises(ValueError, match=r"'nowhere' with exercises; there are: .*change_of_var"):
        chapter("nowhere")
    ex = chapter("change_of_variables")
    last = len(ex.exercises)
    for verb in (lambda n: ex.check(n, 1), ex.hint, ex.solution):
        for n in (0, -1, last + 1, "1", 1.0, True):
            with pytest.raises(ValueError, match=f"no exercise .*; it has 1 to {last}"):
                verb(n)


# Progress.


def test_progress_is_the_same_everywhere_while_nothing_is_attempted(monkeypatch, tmp_path):
    monkeypatch.delenv("MINFLOW_PROGRESS")
    monkeypatch.setenv("HOME", str(tmp_path))
    ex = chapter("change_of_variables")
    shown = ex.progress()
    assert str(tmp_path) not in repr(shown) + shown._repr_html_()
    lines = repr(shown).splitlines()
    assert len(lines) == len(ex.exercises) + 1
    assert all(line.endswith("– not yet") for line in lines[:-1])
    assert lines[-1] == (
        f"0 of {len(ex.exercises)} solved. This is kept in one file, ~/.minflow-progress.json (or "
        "the one that the variable MINFLOW_PROGRESS names), and nowhere else. Delete it, and all "
        "is forgotten."
    )
    monkeypatch.setenv("MINFLOW_PROGRESS", str(tmp_path / "another"))
    assert repr(ex.progress()) == repr(shown), "saved outputs would not compare"
    monkeypatch.delenv("MINFLOW_PROGRESS")
    assert read_html(shown).tags.count("tr") == len(ex.exercises) + 1
    assert list(tmp_path.iterdir()) == []

    ex.check(1, (-2, 5))
    assert [path.name for path in tmp_path.iterdir()] == [".minflow-progress.json"]
    (tmp_path / ".minflow-progress.json").unlink()
    assert repr(ex.progress()) == repr(shown)


def test_attempts_are_kept_and_a_solved_exercise_stays_solved(progress_file):
    ex = chapter("change_of_variables")
    ex.check(2, "a")
    assert json.loads(progress_file.read_text()) == {"change_of_variables": {"2": "wrong"}}
    assert "1.2  How high can a density be?" in repr(ex.progress())
    assert repr(ex.progress()).splitlines()[1].endswith("… tried")
    ex.check(2, "c")
    ex.check(2, "a")
    ex.check(1, ...)
    assert json.loads(progress_file.read_text()) == {"change_of_variables": {"2": "correct"}}
    assert repr(ex.progress()).splitlines()[1].endswith("✓ solved")
    assert repr(ex.progress()).splitlines()[-1].startswith(f"1 of {len(ex.exercises)} solved.")
    assert os.listdir(progress_file.parent) == [progress_file.name]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1, 2]",
        b"7",
        b'{"change_of_variables": 3}',
        b'{"x": {"1": "half"}}',
        b"\xff",
        b'{"x": {"1": ["correct"]}}',
    ],
)
def test_a_file_that_is_not_ours_is_told_and_left_alone(progress_file, content):
    progress_file.write_bytes(content)
    ex = chapter("change_of_variables")
    verdict = ex.check(1, (-2, 5))
    assert verdict.state == "correct"
    for shown in (repr(verdict), repr(ex.progress())):
        assert "could not be read" in shown
        assert "delete the file named by MINFLOW_PROGRESS to begin anew" in shown
    assert progress_file.read_bytes() == content


def test_a_file_that_cannot_be_written_is_told(progress_file, monkeypatch):
    ex = chapter("change_of_variables")
    ex.check(2, "a")
    before = progress_file.read_bytes()

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    verdict = ex.check(1, (-2, 5))
    assert verdict.state == "correct"
    assert "could not be saved (OSError)" in repr(verdict)
    assert progress_file.read_bytes() == before
    assert os.listdir(progress_file.parent) == [progress_file.name], "nothing half-written stays"

    monkeypatch.setenv("MINFLOW_PROGRESS", str(progress_file.parent / "absent" / "file.json"))
    assert "could not be saved (FileNotFoundError)" in repr(ex.check(1, (-2, 5)))


# The notebooks and the entries agree.


def calls_exist(notebook):
    """Each call of a verb names an entry of the chapter that the notebook asked for."""
    code = "\n".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code")
    asked = re.findall(r"\bchapter\(\s*[\"'](\w+)[\"']", code)
    called = re.findall(r"\bex\.(?:check|hint|solution)\(\s*(\d+)", code)
    assert len(asked) == (1 if called else len(asked)), f"which chapter is `ex`? {asked}"
    for name in asked:
        assert {int(n) for n in called} <= set(range(1, len(chapter(name).exercises) + 1))
    for cell in notebook["cells"]:
        if "ex.check(" in "".join(cell["source"]) and cell["cell_type"] == "code":
            assert cell["outputs"], "a cell with ex.check was not run: make notebooks"
            assert "not attempted" in json.dumps(cell["outputs"]), "a stub is attempted"
    return asked


def exercises_in(notebook):
    """{(1, 3): "easy", ...}: the statements, each once; and the numbers that cells call with."""
    cells = [(c["cell_type"], "".join(c["source"]), c) for c in notebook["cells"]]
    words = "\n".join(source for kind, source, _ in cells if kind == "markdown")
    code = "\n".join(source for kind, source, _ in cells if kind == "code")
    statements = re.findall(r"^> \*\*Exercise (\d+)\.(\d+) \((\w+)\)\.\*\*", words, re.MULTILINE)
    assert len(statements) == words.count("> **Exercise"), "a statement has another form"
    levels = {(int(c), int(n)): level for c, n, level in statements}
    assert len(levels) == len(statements), "a number stands twice"
    return levels, {
        verb: {int(n) for n in re.findall(rf"\bex\.{verb}\((\d+)", code)}
        for verb in ("check", "hint", "solution")
    }


def notebook_agrees(name, notebook):
    levels, calls = exercises_in(notebook)
    asked = calls_exist(notebook)
    if name not in chapters():
        assert not levels, "a statement has no entry"
        return
    ex = chapter(name)
    assert asked == [name]
    entries = enumerate(ex.exercises, start=1)
    assert levels == {(ex.number, n): exercise.level for n, exercise in entries}
    numbers = {n for _, n in levels}
    assert list(levels) == sorted(levels), "the exercises are out of order"
    assert calls["check"] == calls["hint"] == numbers
    for n in numbers - calls["solution"]:
        assert ex.exercises[n - 1].kind in ("predict", "derive"), f"ex.solution({n}) is missing"
    words = "\n".join("".join(c["source"]) for c in notebook["cells"])
    folded = words.count("<summary>Solution</summary>")
    assert folded >= len(numbers - calls["solution"]), "a pencil-and-paper solution is missing"


def test_every_notebook_agrees_with_the_entries():
    paths = {path.stem: path for path in sorted((ROOT / "book").glob("*.ipynb"))}
    assert set(chapters()) <= set(paths), "exercises have no notebook"
    for name, path in paths.items():
        notebook_agrees(name, json.loads(path.read_text(encoding="utf-8")))


def made_notebook():
    """A notebook as it should be, for chapter 1."""
    ex = chapter("change_of_variables")
    opening = 'ex = minflow.exercises.chapter("change_of_variables")'
    cells = [{"cell_type": "code", "source": [opening], "outputs": []}]
    for n, exercise in enumerate(ex.exercises, start=1):
        statement = f"> **Exercise 1.{n} ({exercise.level}).** {exercise.title}"
        calls = f"ex.check({n}, ...)", f"ex.hint({n})", f"ex.solution({n})"
        output = [{"data": {"text/plain": repr(ex.check(n, ...))}}]
        cells += [{"cell_type": "markdown", "source": [statement]}]
        cells += [{"cell_type": "code", "source": [call], "outputs": output} for call in calls]
    return {"cells": cells}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Exercise 1.2 (easy)", "Exercise 1.2 (hard)"),
        ("Exercise 1.2 (easy)", "Exercise 2.2 (easy)"),
        ("Exercise 1.2 (easy)", "Exercise 1.99 (easy)"),
        ("Exercise 1.2 (easy)", "Exercise 1.3 (easy)"),
        ("> **Exercise 1.2 (easy).**", "Another."),
        ("> **Exercise 1.2 (easy).**", "> **Exercise 1.2.**"),
        ("ex.check(2", "ex.check(3"),
        ("ex.hint(2)", "2"),
        ("ex.solution(5)", "5"),
        ("ex.solution(1)", "1"),
        ("not attempted", "correct"),
        ('chapter(\\"change_of_variables', 'chapter(\\"jacobian'),
        ("ex = minflow.exercises.chapter", "ex = ask_for"),
    ],
)
def test_a_notebook_that_disagrees_is_caught(old, new):
    good = made_notebook()
    notebook_agrees("change_of_variables", good)
    text = json.dumps(good)
    assert old in text
    with pytest.raises(AssertionError):
        notebook_agrees("change_of_variables", json.loads(text.replace(old, new)))


def test_a_page_without_exercises_of_its_own_calls_only_what_exists():
    opening = 'ex = minflow.exercises.chapter("change_of_variables")\nex.check(1, ...)'
    output = [{"data": {"text/plain": "not attempted yet."}}]
    page = {"cells": [{"cell_type": "code", "source": [opening], "outputs": output}]}
    notebook_agrees("welcome", page)
    last = len(chapter("change_of_variables").exercises)
    for old, new in [
        ("check(1", f"check({last + 1}"),
        ("check(1", "hint(0"),
        ("minflow.exercises.chapter", "its_chapter"),
        ("not attempted", "correct"),
    ]:
        text = json.dumps(page)
        assert old in text
        with pytest.raises(AssertionError):
            notebook_agrees("welcome", json.loads(text.replace(old, new)))
    statement = {"cell_type": "markdown", "source": ["> **Exercise 1.1 (easy).** What?"]}
    with pytest.raises(AssertionError):
        notebook_agrees("welcome", {"cells": [*page["cells"], statement]})
