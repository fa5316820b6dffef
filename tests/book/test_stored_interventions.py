"""Stored effects compared with the study that first measured them: each test holds a claim to its numbers.

The study drew other scenes (five seeds of each pair of classes; here three), hence the tolerances. Where one
of its numbers does not hold, the test has a range around ours, and says why.
"""

from pathlib import Path

import pytest

from gmcam.lab.counterfactuals import LITE, RESNET, VGG, Study

STORED = Study(Path(__file__).parents[2] / "book")


def correlation(rows, column, other="removal"):
    return rows[column].corr(rows[other])


def fidelities(network, layer, own=True):
    """The mean r of each map with the effect map."""
    return STORED.cases("maps", own, network=network, layer=layer).groupby("map")["r"].mean()


@pytest.mark.parametrize(
    ("network", "own", "other", "negative", "absent"),
    [(VGG, 2.48, -1.79, 0.96, -0.32), (RESNET, 3.10, -0.91, 0.91, -0.46)],
)
def test_an_object_raises_its_own_class_and_lowers_the_other(network, own, other, negative, absent):
    cases = [STORED.cases("effects", whose, network=network)["removal"] for whose in (True, False)]
    assert [case.mean() for case in cases] == pytest.approx([own, other], abs=0.06)
    assert (cases[0] < 0).mean() < 0.04
    assert (cases[1] < 0).mean() == pytest.approx(negative, abs=0.02)
    rows = STORED.rows("effects", network=network)
    elsewhere = rows[(rows["target"] != rows["first"]) & (rows["target"] != rows["second"])]
    assert elsewhere["removal"].mean() == pytest.approx(absent, abs=0.02)


@pytest.mark.parametrize(
    ("network", "addition", "interaction", "r"),
    [(VGG, -0.78, -1.02, (0.76, 0.72)), (RESNET, -0.58, -0.33, (0.87, 0.72))],
)
def test_additions_lower_the_other_class_less_than_removals(network, addition, interaction, r):
    own, other = (STORED.cases("effects", whose, network=network) for whose in (True, False))
    assert other["addition"].mean() == pytest.approx(addition, abs=0.04)
    assert other["interaction"].mean() == pytest.approx(interaction, abs=0.04)
    assert [correlation(rows, "addition") for rows in (own, other)] == pytest.approx(r, abs=0.07)


def test_a_cat_and_a_cup_lower_each_other_on_imagenets_network():
    other = STORED.cases("effects", False, network=LITE)["removal"]
    # The study has -0.87 and 74 %, of other scenes, and of groups of classes that it does not name.
    assert -1.4 < other.mean() < -1.0
    assert 0.75 < (other < 0).mean() < 0.90


@pytest.mark.parametrize(("network", "left", "brighter"), [(RESNET, 0.23, 2.6), (LITE, 0.14, 1.5)])
def test_the_trace_on_the_other_object_is_the_targets_own(network, left, brighter):
    trace = STORED.rows("trace", network=network)
    mean = trace[["all", "without_target", "without_other"]].mean()
    assert mean["without_target"] / mean["all"] == pytest.approx(left, abs=0.04)
    assert mean["without_other"] / mean["all"] == pytest.approx(brighter, abs=0.3)
    assert abs(correlation(trace, "all")) < 0.15


def test_the_trace_stays_where_no_average_pooling_follows():
    mean = STORED.rows("trace", network=VGG)[["all", "without_target"]].mean()
    assert mean["without_target"] / mean["all"] > 0.9  # the study does not have this network


MAPS = ("guidance_map", "grad_cam", "gmcam", "grad_cam_squared", "hires_cam", "mask", "feature_sum")


@pytest.mark.parametrize(
    ("network", "layer", "study"),
    [
        (VGG, "32x32", (0.91, 0.41, 0.68, 0.44, 0.75, 0.45, 0.41)),
        (VGG, "16x16", (0.87, 0.55, 0.82, 0.60, 0.73, 0.48, 0.40)),
        (VGG, "pool", (0.85, 0.70, 0.81, 0.73, 0.72, 0.72, 0.52)),
        (RESNET, "32x32", (0.86, 0.50, 0.73, 0.51, 0.79, 0.51, 0.36)),
        (RESNET, "stage3", (0.96, 0.89, 0.91, 0.88, 0.91, 0.64, 0.53)),
        (RESNET, "16x16", (0.98, 0.98, 0.93, 0.93, 0.94, 0.71, 0.59)),
        (LITE, "stage7", (0.92, 0.94, 0.96, 0.97, 0.91, 0.83, None)),
        (LITE, "7x7", (0.99, 0.99, 0.96, 0.96, 0.99, 0.84, None)),
    ],
)
def test_maps_are_as_near_to_the_effect_map_as_in_the_study(network, layer, study):
    r = fidelities(network, layer)
    expected = {name: value for name, value in zip(MAPS, study, strict=True) if value is not None}
    assert r[list(expected)].to_dict() == pytest.approx(expected, abs=0.04)


def test_maps_of_the_target_miss_the_other_objects_effect():
    r = fidelities(RESNET, "16x16", own=False)
    assert [r["hires_cam"], r["grad_cam"], r["gmcam"]] == pytest.approx([0.13, -0.02, -0.03], abs=0.03)
    assert -r["mask"] == pytest.approx(0.45, abs=0.03)
    assert r["minus_hires_cam"] == pytest.approx(0.52, abs=0.03)


@pytest.mark.parametrize(
    ("network", "study"), [(RESNET, (0.78, 0.91, 0.98, 0.93, 0.78)), (LITE, (0.85, 0.96, 0.99, 0.96, 0.87))]
)
def test_the_first_power_of_grad_cam_is_nearest(network, study):
    layer = {RESNET: "16x16", LITE: "7x7"}[network]
    r = fidelities(network, layer)[[f"grad_cam_power_{power}" for power in (0.25, 0.5, 1, 2, 4)]]
    assert r.to_list() == pytest.approx(study, abs=0.03)
    assert r.idxmax() == "grad_cam_power_1"


@pytest.mark.parametrize(
    ("network", "layer", "effect", "errors"),
    [
        (RESNET, "16x16", 0.556, {"grad_cam": -0.020, "gmcam": 0.112}),
        # The study has 0.480 for the effect, in scenes of seven objects; the errors agree.
        (LITE, "7x7", 0.556, {"grad_cam": -0.004, "gmcam": 0.117}),
        (VGG, "16x16", 0.656, {"guidance_map": -0.265, "grad_cam": -0.354, "gmcam": -0.107}),
    ],
)
def test_the_effect_itself_is_partly_outside_its_object(network, layer, effect, errors):
    means = STORED.cases("maps", True, network=network, layer=layer).groupby("map").mean(numeric_only=True)
    assert means["effect_inside"].iloc[0] == pytest.approx(effect, abs=0.01)
    error = means["inside"] - means["effect_inside"]
    assert error[list(errors)].to_dict() == pytest.approx(errors, abs=0.02)


@pytest.mark.parametrize(
    ("network", "study"),
    [
        (VGG, {"telea": 0.99, "harmonic": 0.99, "mean": 0.99, "zero": 0.96, "blur": 0.98}),
        (RESNET, {"telea": 0.98, "harmonic": 0.98, "mean": 0.97, "zero": 0.87}),
        (LITE, {"telea": 0.94, "mean": 0.95, "zero": 0.96, "blur": 0.96, "narrow_blur": 0.96}),
    ],
)
def test_fills_estimate_the_effect_on_the_objects_own_class(network, study):
    fills = STORED.cases("fills", True, network=network).groupby("fill")
    r = {fill: correlation(rows, "estimate") for fill, rows in fills if fill in study}
    assert r == pytest.approx(study, abs=0.04)


@pytest.mark.parametrize(
    ("network", "study"),
    [
        (VGG, {"telea": 0.95, "harmonic": 0.95, "mean": 0.95, "zero": 0.92, "blur": 0.92}),
        (RESNET, {"telea": 0.89, "harmonic": 0.89, "mean": 0.86, "zero": 0.76, "blur": 0.83}),
        (LITE, {"telea": 0.81, "mean": 0.65, "zero": 0.56}),
    ],
)
def test_fills_estimate_the_effect_on_the_other_class_less_well(network, study):
    fills = STORED.cases("fills", False, network=network).groupby("fill")
    r = {fill: correlation(rows, "estimate") for fill, rows in fills if fill in study}
    assert r == pytest.approx(study, abs=0.05)


@pytest.mark.parametrize(
    ("network", "own", "other"), [(VGG, 0.99, 0.93), (RESNET, 0.97, 0.85), (LITE, 0.95, 0.80)]
)
def test_roads_fill_is_as_near_as_inpainting_is(network, own, other):
    """ROAD is not in the study: these are ours. It is a harmonic fill with diagonal neighbours, and noise."""
    for whose, expected in ((True, own), (False, other)):
        fills = STORED.cases("fills", whose, network=network).groupby("fill")
        r = {fill: correlation(rows, "estimate") for fill, rows in fills}
        assert r["road"] == pytest.approx(expected, abs=0.01)
        assert r["road"] == pytest.approx(r["telea"], abs=0.03)


def test_blurs_and_mirrored_pieces_remove_more_than_in_the_study():
    fills = STORED.cases("fills", True, network=RESNET).groupby("fill")
    r = {fill: correlation(rows, "estimate") for fill, rows in fills}
    # The study has 0.76, 0.51 and, for the wide blur, 0.91; it does not say how it treats the border.
    assert 0.78 < r["narrow_blur"] < 0.88 and 0.58 < r["mirror"] < 0.70 and 0.94 < r["blur"] < 0.98


@pytest.mark.parametrize(
    ("network", "layer", "target", "other"),
    [
        (VGG, "64x64", 0.66, 0.46),
        (VGG, "32x32", 0.73, 0.48),
        (VGG, "16x16", 0.56, 0.30),
        (VGG, "pool", 0.54, 0.30),
        (RESNET, "64x64", 0.48, 0.53),
        (RESNET, "32x32", 0.66, 0.56),
        (RESNET, "stage3", 0.80, 0.48),
        (RESNET, "16x16", 0.74, 0.40),
    ],
)
def test_the_ledger_follows_both_effects(network, layer, target, other):
    cases = (STORED.cases("sums", own, network=network, layer=layer) for own in (True, False))
    assert [correlation(rows, "hires_cam") for rows in cases] == pytest.approx([target, other], abs=0.095)


def test_rectified_integrated_gradients_lose_the_other_objects_effect():
    for network, signed, rectified in ((VGG, 0.77, -0.47), (RESNET, 0.58, -0.17)):
        rows = STORED.cases("pixels", False, network=network)
        assert correlation(rows, "signed") == pytest.approx(signed, abs=0.06)
        # ResNet's, -0.35, is within the study's interval, -0.46 to 0.10.
        assert correlation(rows, "rectified") == pytest.approx(rectified, abs=0.19)


def test_the_biased_network_relies_on_grass_and_the_ledger_shows_it():
    study = {"flower": (3.76, 2.34), "cat": (-3.02, -1.84), "person": (-3.52, -1.56)}
    for label, (effect, ledger) in study.items():
        grass, elsewhere = STORED.on_grass("collage-vgg-biased", label, "logit")
        assert grass - elsewhere == pytest.approx(effect, abs=0.35)
        grass, elsewhere = STORED.on_grass("collage-vgg-biased", label, "background_32")
        assert grass - elsewhere == pytest.approx(ledger, abs=0.3)
        grass, elsewhere = STORED.on_grass(VGG, label, "background_16")
        assert 2.2 < elsewhere < 3.7 and abs(grass - elsewhere) < 0.2  # no zero line


def test_removals_sum_to_less_than_the_total():
    means = STORED.rows("triples").groupby("network").mean(numeric_only=True)
    assert means.loc[VGG].to_list() == pytest.approx([0.16, 1.40, 0.69], abs=0.12)
    # The study has 1.07, 1.55 and 1.30, of twice as many scenes: ours sum to 91 % of the total.
    assert means.loc[RESNET].to_list() == pytest.approx([1.41, 1.71, 1.55], abs=0.05)


LIBRARY = {
    "grad_cam": 0.98,
    "guidance_map": 0.98,
    "x_grad_cam": 0.98,
    "ablation_cam": 0.97,
    "integrated_grad_cam": 0.95,
    "relevance_cam": 0.94,
    "cam": 0.93,
    "gmcam": 0.93,
    "layer_cam": 0.92,
    "grad_cam_pp": 0.92,
    "score_cam": 0.87,
    "mask": 0.71,
    "full_grad": 0.69,
    "captum.saliency": 0.68,
    "centred_blob": 0.31,
}
PIXELS = {"occlusion": 0.80, "deep_lift": 0.75, "integrated_gradients": 0.69, "input_x_gradient": 0.66}
PIXELS |= {"guided_backprop": 0.62}


def test_the_library_is_ranked_as_in_the_study():
    rows = STORED.cases("library", True)
    means = rows.groupby("map")[["r", "r_rectified"]].mean()
    assert rows.groupby("map").size().eq(112).all() and len(means) > 30
    assert means["r"][list(LIBRARY)].to_dict() == pytest.approx(LIBRARY, abs=0.025)
    # The study's numbers are those of maps rectified pixel by pixel; signed, they are 0.14 to 0.74.
    pixels = {f"captum.{name}": value for name, value in PIXELS.items()}
    assert means["r_rectified"][list(pixels)].to_dict() == pytest.approx(pixels, abs=0.02)
    # The study has 0.54. Feature maps that are centred first, against the paper, give 0.52 to 0.54.
    assert 0.56 < means["r"]["eigen_cam"] < 0.60


def test_the_other_objects_own_map_beats_every_map_of_the_target():
    r = STORED.cases("library", False).groupby("map")["r"].mean()
    assert r["minus_grad_cam"] == pytest.approx(0.55, abs=0.03)
    assert -r["mask"] == pytest.approx(0.45, abs=0.02)
    best = r.drop(["minus_grad_cam", "mask"]).max()
    assert best == r["cam"] == pytest.approx(0.14, abs=0.02)


@pytest.mark.parametrize(
    ("network", "study"),
    [(RESNET, (0.40, 0.86, 1.00)), (VGG, (0.30, 0.48, 0.65)), (LITE, (0.27, 0.65, 0.98))],
)
def test_a_baseline_and_all_cells_repair_the_ledger(network, study):
    rows = STORED.cases("repairs", False, network=network)
    r = [correlation(rows, column) for column in ("zero", "baseline", "everywhere")]
    assert r == sorted(r)
    # The first has the widest intervals: ours are 0.3 to 0.8 wide, the study's of Lite0 0.5.
    assert r[0] == pytest.approx(study[0], abs=0.14)
    assert r[1:] == pytest.approx(study[1:], abs=0.04)


def test_max_pooling_changes_no_sum():
    rows = STORED.rows("pooling")
    assert rows["zeros_before"].mean() == pytest.approx(0.75, abs=0.01) and (rows["zeros_after"] == 0).all()
    means = rows.groupby(["map", "layer"]).mean(numeric_only=True)
    assert rows[rows["map"] == "hires_cam"]["difference"].max() < 1e-6
    assert means.loc["signed_grad_cam"]["r_each_other"].between(0.965, 0.985).all()
    change = (means["r_after"] - means["r_before"]).loc["grad_cam"]
    assert change[["32x32", "16x16"]].to_list() == pytest.approx([-0.03, 0.02], abs=0.02)
    # The study has 0.56 and 0.69, of other seeds; our interval at 32x32 is 0.27 to 0.65.
    assert means["r_before"]["grad_cam"][["32x32", "16x16"]].to_list() == pytest.approx(
        [0.47, 0.67], abs=0.02
    )


def test_seven_objects_on_imagenets_network():
    own, other = (STORED.cases("seven_effects", whose) for whose in (True, False))
    assert len(own) == len(other) == 168
    # The study does not name its groups of classes.
    assert own["removal"].mean() == pytest.approx(2.82, abs=0.35) and (own["removal"] < 0).mean() < 0.07
    assert other["removal"].mean() == pytest.approx(-1.15, abs=0.15)
    assert (other["removal"] < 0).mean() == pytest.approx(0.88, abs=0.04)
    assert other["addition"].mean() == pytest.approx(-0.09, abs=0.1)
    assert [correlation(rows, "addition") for rows in (own, other)] == pytest.approx([0.78, 0.44], abs=0.04)
    for layer, study in (("stage7", 0.87), ("7x7", 0.89)):
        rows = STORED.cases("seven_sums", True, layer=layer)
        assert correlation(rows, "hires_cam") == pytest.approx(study, abs=0.02)
    # At 14x14 the study has 0.21 and 0.19, we 0.05 [-0.30, 0.54] and 0.34 [-0.05, 0.62].
    r = [correlation(STORED.cases("seven_sums", own, layer="14x14"), "hires_cam") for own in (True, False)]
    assert -0.1 < r[0] < 0.2 and 0.2 < r[1] < 0.5


@pytest.mark.parametrize(
    ("network", "layer", "which", "rho"),
    [
        (VGG, "64x64", 0.70, 0.67),
        (VGG, "32x32", 0.70, 0.68),
        (VGG, "16x16", 0.63, 0.53),
        (VGG, "pool", 0.62, 0.51),
        (RESNET, "64x64", 0.61, 0.47),
        (RESNET, "32x32", 0.64, 0.56),
        (RESNET, "stage3", 0.70, 0.59),
        (RESNET, "16x16", 0.72, 0.57),
        (LITE, "14x14", 0.64, 0.37),
        (LITE, "stage7", 0.67, 0.27),
        (LITE, "7x7", 0.70, 0.34),
    ],
)
def test_the_ledger_ranks_objects_and_classes(network, layer, which, rho):
    [row] = STORED.rows("orders", network=network, layer=layer, map="hires_cam").to_dict("records")
    assert [row["which"], row["rho"]] == pytest.approx([which, rho], abs=0.045)


def test_the_mean_effect_in_other_scenes_ranks_them_as_well():
    for network, layer, sign, which in ((VGG, "32x32", 0.78, 0.72), (RESNET, "32x32", 0.83, 0.69)):
        rows = STORED.rows("orders", network=network, layer=layer).set_index("map")
        # The study's mean is of nine other scenes, ours of five.
        assert rows["sign"]["elsewhere"] == pytest.approx(sign, abs=0.03)
        assert rows["which"]["elsewhere"] == pytest.approx(which, abs=0.06)
        assert rows["sign"]["hires_cam"] - rows["sign"]["elsewhere"] < 0.05
