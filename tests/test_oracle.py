"""The oracle against literals and identities, the committed suite against the oracle, and the tolerance against itself."""

from __future__ import annotations

import copy
import inspect
import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from mpmath import mp

import sincere_spec as ss
from sincere_spec.conformance import cases, questions
from sincere_spec.conformance.cases import CaseError, Numbers
from sincere_spec.conformance.oracle import balls, differences, digits, files, loops
from sincere_spec.conformance.oracle.conditioning import conditioned
from sincere_spec.conformance.oracle.problem import Problem
from sincere_spec.conformance.oracle.recipes import gathered, recipes, scattered
from sincere_spec.conformance.tolerance import PRECISIONS, K, ratio, ratios
from sincere_spec.engines.rows import REDUCTIONS

LABELS = (0, 1, 2, 0, 1, 2, 0)
Z = gathered("test", LABELS, 5)


@cache
def suite():
    return {case.id: case for case in cases.load()}


def value(loss, options, *, normalize=True, reduction="mean", **arguments):
    """The oracle's value as a float, or a list of row losses."""
    made = {name: np.asarray(x) for name, x in arguments.items()}
    numbers = [float(x) for x in differences.value(Problem(loss, options, made, normalize, reduction))]
    return numbers if reduction == "none" else numbers[0]


def labelled(loss, *, labels=LABELS, reduction="none", **options):
    return value(loss, {"temperature": 0.25, **options}, reduction=reduction, embeddings=Z, labels=labels)


# literals, worked out by hand

AXES = np.asarray([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
E = math.e


@pytest.mark.parametrize(
    ("loss", "options", "expected"),
    [
        ("sincere", {"epsilon": 0.0}, math.log(1 + 2 / E)),
        ("sincere", {"epsilon": 1.0}, math.log(1 + 2) - 1),
        ("supcon", {"summation": "out"}, math.log(1 + 2 / E)),
        ("supcon", {"summation": "in"}, math.log(1 + 2 / E)),
        ("decoupled", {}, math.log(2) - 1),
    ],
)
def test_labelled_literals(loss, options, expected):
    got = value(loss, {"temperature": 1.0, **options}, embeddings=AXES, labels=[0, 0, 1, 1])
    assert got == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("loss", "options", "names", "expected"),
    [
        ("clip", {"temperature": 1.0}, "ab", math.log(1 + 1 / E)),
        ("siglip", {"temperature": 1.0, "bias": -1.0}, "ab", math.log(2) + math.log(1 + 1 / E)),
        ("info_nce", {"temperature": 0.5}, ("queries", "positives"), math.log(1 + E**-2)),
        ("nt_xent", {"temperature": 1.0}, ("view_0", "view_1"), math.log(1 + 2 / E)),
        (
            "f_micl",
            {"divergence": "kl", "alpha": 3.0, "inverse_bandwidth": 0.5},
            ("view_a", "view_b"),
            -1 + 3 / E,
        ),
    ],
)
def test_paired_literals(loss, options, names, expected):
    one, two = np.eye(2), 4 * np.eye(2)
    assert value(loss, options, **dict(zip(names, (one, two), strict=True))) == pytest.approx(expected, rel=1e-15)


def test_relations_literals():
    """Rows (1, 0) and (0, 1) at temperature 1: similarities are 1 or 0."""
    one, two, two_more = np.eye(2), 4 * np.eye(2), np.asarray([[[0, 1], [1, 0]], [[0, 1], [0, 1]]], dtype=float)
    ordinary, at = math.log(1 + 1 / E), {"temperature": 1.0}
    towers = {"a": one, "b": two}
    assert value("clip", at, **towers, groups=[3, 3]) == 0
    assert value("clip", at, **towers, groups=[3, 4]) == pytest.approx(ordinary, rel=1e-15)
    rows = value("clip", at, **towers, ignore=[[False, True], [False, False]], reduction="none")
    assert rows == pytest.approx([0, ordinary, ordinary, 0], rel=1e-15)
    rows = value("clip", at, **towers, ignore=[[True, False], [False, False]], reduction="none")
    assert rows == pytest.approx([0, ordinary, 0, ordinary], rel=1e-15)
    assert value("clip", at, **towers, where=[True, False], reduction="none") == [0, 0, 0, 0]
    queries = {"queries": one, "positives": two, "own_negatives": two_more}
    rows = value("info_nce", at, **queries, reduction="none")
    assert rows == pytest.approx([math.log(1 + (1 + E) / E), math.log(1 + 2 * E / E)], rel=1e-15)
    there = [[True, False], [False, False]]
    assert value("info_nce", at, **queries, key_where=there) == pytest.approx(math.log(1 + 1 / E) / 2, rel=1e-15)
    guides = {"guide_a": one, "guide_b": np.asarray([[1.0, 0.0], [1.0, 0.0]])}
    rows = value("clip", {**at, "margin": 0.0}, **towers, **guides, reduction="none")
    assert rows == pytest.approx([0, 0, ordinary, 0], rel=1e-15)  # of a tie, of more, of less, of a tie


def test_literals_of_positives_that_weigh():
    z, out, within = AXES[:3], {"temperature": 1.0, "summation": "out"}, {"temperature": 1.0, "summation": "in"}
    others = math.log(E + 1)  # of the first row: one like it, and one at right angles
    weights = np.asarray([[9.0, 3.0, 1.0], [0.0, 9.0, 0.0], [0.0, 2.0, 0.0]])
    rows = value("supcon", out, embeddings=z, positive_weights=weights, reduction="none")
    assert rows == pytest.approx([others - 3 / 4, 0, math.log(2)], rel=1e-15)
    rows = value("supcon", within, embeddings=z, positive_weights=weights, reduction="none")
    assert rows == pytest.approx([others - math.log((3 * E + 1) / 4), 0, math.log(2)], rel=1e-15)
    by_pair = value("supcon", out, embeddings=z, positive_weights=weights, reduction="pairs")
    assert by_pair == pytest.approx((4 * (others - 3 / 4) + 2 * math.log(2)) / 6, rel=1e-15)
    classes = np.asarray([[1, 1, 0], [1, 0, 1], [0, 1, 0]]) > 0  # shares 1/3 and 1/2
    rows = value("supcon", {**out, "overlap": "jaccard"}, embeddings=z, classes=classes, reduction="none")
    assert rows == pytest.approx([others - (1 / 3) / (1 / 3 + 1 / 2), others - 1, math.log(2)], rel=1e-15)
    rows = value("supcon", {**out, "overlap": "any"}, embeddings=z, classes=classes, reduction="none")
    assert rows == pytest.approx([others - 1 / 2, others - 1, math.log(2)], rel=1e-15)
    nothing = np.zeros((3, 2), dtype=bool)
    assert value("supcon", {**out, "overlap": "jaccard"}, embeddings=z, classes=nothing) == 0


def test_what_a_guide_decides_by_a_rounding_is_refused():
    (one,) = [recipe for recipe in recipes() if recipe.id == "info_nce/guide"]
    near = np.asarray([[1.0, 2.0**-5], [1.0, 2.0**-5 + 2.0**-12]])  # cosines with (1, 0) that differ by 8e-6
    guides = {"guide_queries": np.eye(2), "guide_positives": near}
    arguments = {"queries": np.eye(2), "positives": np.eye(2), **guides}
    options = {**one.problem.options, "margin": 0.0}
    with pytest.raises(ValueError, match="stands where single precision may decide"):
        files.check_inputs([replace(one, problem=replace(one.problem, options=options, arguments=arguments))])


def test_a_schedule_has_its_ends():
    for similarity, expected in ((0, 0.25), (1, 0.5), (-1, 0.5)):
        assert float(loops.cosine_schedule(mp.mpf(similarity), 0.25, 0.5)) == pytest.approx(expected, rel=1e-14)
    assert float(loops.shifted_schedule(mp.mpf("0.5"), 0.25, 0.5, -0.25, 0.5)) == 0.5
    assert float(loops.shifted_schedule(mp.mpf("-0.25"), 0.25, 0.5, -0.25, 0.5)) == pytest.approx(0.25, rel=1e-14)


def conjugate(name, t, order):
    """f* as its closed form is printed, or as Lambert's function gives it."""
    if name == "jeffreys":
        w = mp.lambertw(mp.exp(1 - t))
        return w + 1 / w + t - 2
    return {
        "kl": lambda: mp.exp(t - 1),
        "js": lambda: -mp.log(2 - mp.exp(t)),
        "pearson": lambda: t**2 / 4 + t,
        "hellinger": lambda: t / (1 - t),
        "tsallis": lambda: ((order - 1) * t / order) ** (order / (order - 1)),
        "vincze_le_cam": lambda: 4 - t - 4 * mp.sqrt(1 - t),
        "reverse_kl": lambda: -1 - mp.log(-t),
        "neyman": lambda: 2 - 2 * mp.sqrt(1 - t),
    }[name]()


@pytest.mark.parametrize(
    "name",
    ["kl", "js", "pearson", "hellinger", "tsallis", "vincze_le_cam", "reverse_kl", "neyman", "jeffreys"],
)
def test_the_conjugate_of_a_divergence_is_u_slope_minus_f(name):
    with mp.workdps(40):
        for u in (mp.mpf("0.02"), mp.mpf("0.7"), mp.mpf("1.4")):
            order = mp.mpf("1.5")
            f, slope = loops.f_divergence(name, u, order)
            assert mp.almosteq(u * slope - f, conjugate(name, slope, order), rel_eps=mp.mpf(10) ** -30)
            assert mp.almosteq(
                mp.diff(lambda x, order=order: loops.f_divergence(name, x, order)[0], u),
                slope,
                rel_eps=mp.mpf(10) ** -15,
            )


# identities


def test_one_positive_a_row_makes_sincere_nt_xent_and_both_supcons():
    one, two = Z[:4], scattered("test", 4, 5)
    views = value("nt_xent", {"temperature": 0.25}, view_0=one, view_1=two)
    stacked = {"embeddings": np.concatenate([one, two]), "labels": [0, 1, 2, 3] * 2}
    for loss, options in (
        ("sincere", {"epsilon": 0.0}),
        ("supcon", {"summation": "out"}),
        ("supcon", {"summation": "in"}),
    ):
        assert value(loss, {"temperature": 0.25, **options}, **stacked) == pytest.approx(views, rel=1e-15)


def test_sincere_is_at_most_supcon_and_the_sum_inside_at_most_outside():
    sincere, outside = labelled("sincere", epsilon=0.0), labelled("supcon", summation="out")
    inside = labelled("supcon", summation="in")
    for i, label in enumerate(LABELS):
        positives = LABELS.count(label) - 1
        assert sincere[i] < outside[i] if positives > 1 else sincere[i] == pytest.approx(outside[i], rel=1e-15)
        assert math.log(positives) <= inside[i] <= outside[i]


def test_epsilon_lowers_sincere_towards_the_decoupled_loss():
    rows = [labelled("sincere", epsilon=epsilon) for epsilon in (0.0, 0.5, 2.0, 60.0)]
    for higher, lower in pairwise(rows):
        assert all(b < a for a, b in zip(higher, lower, strict=True))
    assert rows[-1] == pytest.approx(labelled("decoupled"), rel=1e-15)


@pytest.mark.parametrize("detach", [True, False])
def test_equal_temperatures_make_dystress_nt_xent(detach):
    views = {"view_0": Z[:2], "view_1": scattered("test", 2, 5)}
    equal = {"temperature_min": 0.25, "temperature_max": 0.25, "detach": detach}
    one = differences.gradient(Problem("dystress", equal, views))
    two = differences.gradient(Problem("nt_xent", {"temperature": 0.25}, views))
    for name in views:
        np.testing.assert_allclose(np.asarray(one[name], float), np.asarray(two[name], float), rtol=1e-14)


def test_detaching_the_temperature_changes_the_gradient_and_not_the_value():
    held, free = suite()["dystress/cosine"], suite()["dystress/cosine-full-derivative"]
    assert held.value.want == free.value.want
    assert held.gradient["view_0"] != free.gradient["view_0"]


def test_kl_f_micl_reaches_the_donsker_varadhan_bound_at_its_best_weight():
    a, b = Z, scattered("test", 7, 5)

    def bound(alpha):
        options = {"divergence": "kl", "alpha": alpha, "inverse_bandwidth": 0.75}
        return math.log(alpha) - value("f_micl", options, view_a=a, view_b=b)

    unit_a, unit_b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    t = -0.75 * (2 - 2 * unit_a @ unit_a.T)
    mean = float(np.mean(np.exp(t[~np.eye(7, dtype=bool)])))
    near = float(np.mean(-0.75 * (2 - 2 * np.sum(unit_a * unit_b, axis=1))))
    # The objective holds the constant 1 of f'(u) = log u + 1, which log alpha's best value takes away again.
    assert bound(1 / mean) == pytest.approx(near - math.log(mean), rel=1e-13)
    assert bound(1.1 / mean) < bound(1 / mean) > bound(0.9 / mean)


def test_clip_is_info_nce_both_ways_and_siglip_is_over_n():
    a, b = Z, scattered("test", 7, 5)
    one = value("info_nce", {"temperature": 0.25}, queries=a, positives=b)
    two = value("info_nce", {"temperature": 0.25}, queries=b, positives=a)
    assert value("clip", {"temperature": 0.25}, a=a, b=b) == pytest.approx((one + two) / 2, rel=1e-15)
    options = {"temperature": 0.25, "bias": -1.0}
    rows = value("siglip", options, reduction="none", a=a, b=b)
    assert value("siglip", options, a=a, b=b) == pytest.approx(sum(rows) / 7, rel=1e-15)


def test_reductions_weigh_rows_as_they_say():
    labels = (0, 0, 1, 0, 2, 1, 0)  # row 4 is alone
    rows = labelled("sincere", epsilon=0.0, labels=labels)
    positives = [labels.count(label) - 1 for label in labels]

    def reduced(reduction):
        return labelled("sincere", epsilon=0.0, labels=labels, reduction=reduction)

    assert rows[4] == 0
    assert reduced("sum") == pytest.approx(sum(rows), rel=1e-15)
    assert reduced("mean") == pytest.approx(sum(rows) / 6, rel=1e-15)
    assert reduced("batch") == pytest.approx(sum(rows) / 7, rel=1e-15)
    weighted = sum(p * row for p, row in zip(positives, rows, strict=True)) / sum(positives)
    assert reduced("pairs") == pytest.approx(weighted, rel=1e-15)


def numbers(x):
    return np.asarray(x.flat).reshape(x.shape)


@pytest.mark.parametrize(
    "name", ["sincere/unnormalised", "supcon/out-unnormalised", "clip/unnormalised", "nt_xent/unnormalised"]
)
def test_eulers_identity(name):
    """Logits are of degree two in the rows and minus one in the temperature."""
    case = suite()[name]
    arrays = {key: x for key, x in case.arguments.items() if isinstance(x, Numbers)}
    along = sum(float(np.sum(numbers(x) * numbers(case.gradient[key].want))) for key, x in arrays.items())
    slope = case.gradient["temperature"].want.flat[0]
    assert along == pytest.approx(-2 * case.options["temperature"] * slope, rel=1e-11)


@pytest.mark.parametrize("name", ["sincere/ordinary", "clip/ordinary", "f_micl/js", "dystress/cosine", "sincere/norms"])
def test_a_normalised_row_is_orthogonal_to_its_gradient(name):
    case = suite()[name]
    for key, x in case.arguments.items():
        if isinstance(x, Numbers):
            rows, gradient = numbers(x), numbers(case.gradient[key].want)
            size = np.sum(np.abs(rows * gradient), axis=1)
            assert np.all(np.abs(np.sum(rows * gradient, axis=1)) <= 1e-13 * size)


@pytest.mark.parametrize(
    "name",
    [
        "sincere/empty-batch",
        "sincere/one-row",
        "sincere/two-rows",
        "sincere/all-one-class",
        "supcon/out-all-singletons",
        "clip/one-pair",
    ],
)
def test_nothing_to_compare_is_exactly_nothing(name):
    case = suite()[name]
    assert case.value.want.flat == (0.0,)
    assert all(x == 0 for expected in case.gradient.values() for x in expected.want.flat)


def test_a_zero_row_has_no_gradient():
    assert suite()["sincere/zero-row"].gradient["embeddings"].want.flat[24:30] == (0.0,) * 6
    assert any(suite()["sincere/zero-row-unnormalised"].gradient["embeddings"].want.flat[24:30])


# closed forms and scales


def test_the_scale_of_a_small_loss_is_small():
    """A softplus is right relative to itself; so a difference of large numbers cannot pass for it."""
    for name in ("sincere/well-separated-settled", "nt_xent/well-separated", "clip/settled"):
        expected = suite()[name].value
        assert 0 < expected.want.flat[0] < 1e-20
        assert expected.scale.flat[0] < 1e4 * expected.want.flat[0]


@pytest.mark.parametrize("name", ["sincere/ordinary", "supcon/in-ordinary", "siglip/ordinary", "f_micl/jeffreys"])
def test_single_precision_is_within_the_scale_and_half_is_not(name):
    """Rounding the rows to 24 bits is forgiven; rounding them to 11 is not."""
    problem = next(recipe.problem for recipe in recipes() if recipe.id == name)
    answer = conditioned(problem)
    unit = {key: x / np.linalg.norm(x, axis=1, keepdims=True) for key, x in problem.arrays().items()}
    for dtype, forgiven in ((np.float32, True), (np.float16, False)):
        rounded = {key: x.astype(dtype).astype(np.float64) for key, x in unit.items()}
        arguments = {**problem.arguments, **rounded}
        got = conditioned(Problem(problem.loss, problem.options, arguments, False, "mean", problem.cotangent))
        error = ratio(got.value, answer.value, answer.scale, dtype="float32", output="float32")
        assert (error <= K) == forgiven


def test_the_answers_on_real_data():
    for problem in digits.problems():  # in one test: naming them all would read the data in every process
        assert digits.check(problem, rows=40) < 1, problem.name


def test_the_digits_are_all_there():
    first = digits.problems()[0]
    assert first.arguments["embeddings"].shape == (1797, 64)
    assert first.arguments["labels"].shape == (1797,)
    x = first.arguments["embeddings"][:5]
    for axis in (1, 2):
        there = digits.moved(x, axis)
        assert not np.array_equal(there, x)
        np.testing.assert_array_equal(np.sum(there**2, axis=1), np.sum(x**2, axis=1))


# the committed suite


def test_the_committed_files_are_what_the_oracle_makes():
    assert files.check_quickly() == len(suite())


def entries():
    for path in sorted(cases.SUITE.glob("*/*.json")):
        yield from json.loads(path.read_text(encoding="utf-8"))["cases"]


def test_every_digit_is_proved_by_balls():
    """By formulas, arithmetic and a differentiation of their own: no number of the files is wrong in its last bit."""
    assert sum(balls.prove(case) for case in entries()) > 10_000
    assert len(list(entries())) == len(suite())


@pytest.mark.parametrize("name", ["sincere/ordinary", "sincere/all-one-class", "clip/none", "f_micl/jeffreys"])
def test_a_number_that_is_wrong_in_its_last_bit_is_not_proved(name):
    right = next(case for case in entries() if case["id"] == name)

    def higher(text):
        return math.nextafter(float.fromhex(text), math.inf).hex()

    for place in ("value", *right["gradient"]):
        wrong = copy.deepcopy(right)
        entry = wrong["value"] if place == "value" else wrong["gradient"][place]
        if isinstance(entry["hex"], list):
            entry["hex"][-1] = higher(entry["hex"][-1])
        else:
            entry["hex"] = higher(entry["hex"])
        with pytest.raises(ValueError, match=f"{name}: .*{place}: .* is stored, and .* is true"):
            balls.prove(wrong)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"decimal":"0.', '"decimal":"1.', "value: decimal is not what the oracle makes"),
        ('"normalize": true', '"normalize": false', "normalize is not what the recipe says"),
        (
            '"gradient": {"embeddings":{"hex":["-0x1.',
            '"gradient": {"embeddings":{"hex":["0x1.',
            "differ by more than rounding",
        ),
    ],
)
def test_a_change_in_a_file_is_seen(tmp_path, old, new, complaint):
    copy = tmp_path / "suite"
    shutil.copytree(cases.SUITE, copy)
    path = copy / "core" / "sincere.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=complaint):
        files.check_quickly(copy)


def test_inputs_that_are_not_exact_are_refused():
    recipe = next(iter(recipes()))
    rough = {**recipe.problem.arguments, "embeddings": recipe.problem.arguments["embeddings"] / 3}
    bad = Problem("sincere", recipe.problem.options, rough, cotangent=recipe.problem.cotangent)
    with pytest.raises(ValueError, match="embeddings is not exact in bfloat16"):
        files.check_inputs([type(recipe)(recipe.profile, recipe.id, recipe.says, bad)])
    with pytest.raises(ValueError, match="used twice"):
        files.check_inputs([recipe, recipe])
    one = type(recipe)(recipe.profile, recipe.id, recipe.says, recipe.problem.with_cotangent(np.asarray(1.0)))
    with pytest.raises(ValueError, match="cotangent of 1"):
        files.check_inputs([one])


def test_the_schema_refuses_what_is_no_case():
    schema = json.loads((cases.SUITE / "case.schema.json").read_text())
    document = json.loads((cases.SUITE / "core" / "sincere.json").read_text())
    jsonschema.validate(document, schema)
    document["cases"][0]["options"]["temperature"] = 0.125
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)


def choices(loss, option):
    """The words that an option of a loss may be, as the refusal of another one names them."""
    with pytest.raises(ss.OptionError) as refusal:
        getattr(ss.losses, loss)(**{option: "another"})
    return set(re.findall(r"'(\w+)'", str(refusal.value))) - {"another"}


def asked(loss, option):
    return {case.options[option] for case in suite().values() if case.loss == loss}


def test_every_loss_and_every_form_of_it_is_asked():
    assert {case.loss for case in suite().values()} == set(ss.losses.__all__) == set(questions.LOSSES)
    for loss, option in (("supcon", "summation"), ("dystress", "schedule"), ("f_micl", "divergence")):
        words = choices(loss, option)
        assert len(words) > 1
        assert asked(loss, option) == words
    assert asked("dystress", "detach") == {True, False}
    assert len(asked("sincere", "epsilon")) > 1
    assert {case.options["order"] < 1 for case in suite().values() if "order" in case.options} == {True, False}
    for loss in ss.losses.__all__:
        forms = [case for case in suite().values() if case.loss == loss]
        options = {name for case in forms for name in case.options} - set(questions.OF_RELATIONS)
        assert options == set(inspect.signature(getattr(ss.losses, loss)).parameters)
        given = {name for case in forms for name in case.arguments if not cases.held(name)} - set(questions.RELATED)
        arguments = {re.sub(r"view_\d", "views", name) for name in given}
        keywords = {"where", "ignore", "across", "normalize", "reduction", "engine", "tile"}
        assert arguments | options | keywords == set(inspect.signature(getattr(ss, f"{loss}_loss")).parameters)
        assert {case.normalize for case in forms} == {True, False}
        weighted = (
            "pairs" if "labels" in arguments else "sum"
        )  # without labels a row has as many positives as any other
        assert {case.reduction for case in forms} >= {"mean", "none", weighted}
    assert {case.reduction for case in suite().values()} == set(REDUCTIONS)


def test_every_profile_is_a_folder_and_every_case_what_it_must_be():
    schema = json.loads((cases.SUITE / "case.schema.json").read_text())
    profiles = {case.profile for case in suite().values()}
    assert profiles == {path.name for path in cases.SUITE.iterdir() if path.is_dir()}
    assert profiles == set(schema["properties"]["profile"]["enum"])
    assert max(path.stat().st_size for path in cases.SUITE.glob("*/*.json")) < 900_000
    for case in suite().values():
        assert 1.0 not in case.cotangent.flat
        for name in ("temperature", "bias"):
            assert (name in case.gradient) == (name in case.options)


def test_late_training_has_every_loss():
    assert {case.loss for case in suite().values() if case.profile == "late-training"} == set(questions.LOSSES)


# loading


def test_loading_needs_no_numpy():
    code = "import sys; from sincere_spec.conformance import cases; cases.load(); assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent, timeout=60)


def test_numbers_as_nested_lists():
    assert Numbers((2, 1, 2), (1.0, 2.0, 3.0, 4.0)).nested() == [[[1.0, 2.0]], [[3.0, 4.0]]]
    assert Numbers((), (5.0,)).nested() == 5.0
    assert Numbers((0, 3), ()).nested() == []
    assert Numbers((2, 0), ()).nested() == [[], []]


def test_profiles_are_chosen_by_name():
    chosen = cases.load(profiles=["queue"])
    assert chosen
    assert {case.profile for case in chosen} == {"queue"}
    with pytest.raises(CaseError, match="profile 'ques': not in this suite, which has core, degenerate"):
        cases.load(profiles=["ques"])


def spoil(path, case):
    document = {"suite": "1.0.0", "profile": "core", "loss": "sincere", "cases": [case]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("field", "new", "complaint"),
    [
        ("says", None, "says is missing"),
        ("note", "x", "note is not a field of a case"),
        ("reduction", "average", "reduction: 'average' is none of mean"),
        ("dtypes", ["float8"], "dtypes: float8"),
        ("cotangent", "1.5", "cotangent: a hexadecimal float in a string was expected"),
        ("cotangent", ["0x1.8p+0"], "cotangent: 1 entries were expected, and 1 came"),
        ("options", {"temperature": "0x1p+2000"}, "temperature: '0x1p\\+2000' is no float"),
        ("value", {"hex": "0x1p+0", "scale": "-0x1p+0", "decimal": "1.0"}, "value scale: a negative number"),
        ("gradient", {}, "gradient: that of embeddings is missing"),
        ("gradient", {"labels": {"hex": "0x0p+0", "scale": "0x0p+0"}}, "labels is no argument that has one"),
        (
            "arguments",
            {"embeddings": {"shape": [2, 2], "hex": ["0x1p+0"]}},
            "embeddings: 4 entries were expected, and 1 came",
        ),
        ("arguments", {"ignore": [[True, 1]]}, "ignore: a list of booleans, or of rows of them, was expected"),
        ("arguments", {"ignore": [[True], [True, False]]}, "ignore: a list of booleans, or of rows of them"),
        ("arguments", {"where": True}, "where: a list of booleans, or of rows of them"),
        ("loss", "clip", "a case of clip in a file of sincere"),
    ],
)
def test_a_malformed_case_is_named(tmp_path, field, new, complaint):
    case = json.loads((cases.SUITE / "core" / "sincere.json").read_text())["cases"][0]
    case = {**case, field: new}
    if new is None:
        del case[field]
    spoil(tmp_path / "core" / "sincere.json", case)
    with pytest.raises(CaseError, match=complaint) as error:
        cases.load(tmp_path)
    assert str(error.value).startswith("sincere/ordinary: ")
    assert "\n" not in str(error.value)


def test_a_malformed_file_is_named(tmp_path):
    with pytest.raises(CaseError, match="no files of the suite"):
        cases.load(tmp_path)
    path = tmp_path / "core" / "sincere.json"
    path.parent.mkdir()
    for text, complaint in (("{", "not JSON"), ("{}", "were expected")):
        path.write_text(text)
        with pytest.raises(CaseError, match=complaint):
            cases.load(tmp_path)
    spoil(tmp_path / "core" / "supcon.json", {})
    path.unlink()
    with pytest.raises(CaseError, match="holds profile 'core' and loss 'sincere'"):
        cases.load(tmp_path)


# tolerance


def test_a_ratio_is_the_error_in_units_of_u_scale():
    u = PRECISIONS["float32"].unit
    for units in (0.5, 3.9, 4.1):
        got = 1.0 + u + units * u * 10
        found = ratio(got, 1.0, 10.0, dtype="float32", output="float32")
        assert found == pytest.approx(units, rel=1e-9)
        assert (found <= K) == (units <= 4)


def test_half_types_compute_in_single_precision_and_round_their_gradients_once():
    for dtype in ("float16", "bfloat16"):
        unit = PRECISIONS[dtype].unit
        assert ratio(1 + unit, 1.0, 1.0, dtype=dtype, output=dtype) == 0
        assert ratio(1 + 2 * unit, 1.0, 1.0, dtype=dtype, output=dtype) > K
        assert ratio(1 + unit, 1.0, 1.0, dtype=dtype, output="float32") > K


def test_nan_and_infinity():
    nan, inf = math.nan, math.inf
    got, want = [nan, nan, 1.0, inf, inf, inf, -inf], [nan, 1.0, nan, 1.0, inf, 7e4, 7e4]
    found = ratios(got, want, [1.0] * 7, dtype="float16", output="float16")
    assert found.tolist() == [0.0, inf, inf, inf, 0.0, 0.0, inf]
    assert ratio([nan], [1.0], [0.0], dtype="float64", output="float64") == inf


def test_an_exact_zero_is_wanted_exactly():
    assert ratio(0.0, 0.0, 0.0, dtype="float32", output="float32") == 0
    assert ratio(1e-30, 0.0, 0.0, dtype="float32", output="float32") == math.inf
    assert ratio(1e-38, 0.0, 0.0, dtype="float32", output="float32", floor=2.0) == 0


def test_shapes_and_types_are_checked():
    assert ratio([], [], [], dtype="float32", output="float32") == 0
    assert ratio([1.0], [1.0, 2.0], [1.0, 1.0], dtype="float32", output="float32") == math.inf
    with pytest.raises(ValueError, match=r"shape \(2,\) was expected, and \(1,\) came"):
        ratios([1.0], [1.0, 2.0], [1.0, 1.0], dtype="float32", output="float32")
    with pytest.raises(ValueError, match="dtype: 'float8' is none of"):
        ratio(1.0, 1.0, 1.0, dtype="float8", output="float32")
