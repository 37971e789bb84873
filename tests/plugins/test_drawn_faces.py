"""The drawn faces: the same everywhere, and each factor shows where it should."""

from __future__ import annotations

import colorsys
import hashlib
import os
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest

from vgx_builtin.datasets.face_drawing import RANGES, FaceFactors, draw_face, draw_factors
from vgx_builtin.datasets.face_drawing.factors import (
    ACCESSORIES,
    BACKGROUND_KINDS,
    CLOTHES_KINDS,
    FRINGE_STYLES,
    HAIR_STYLES,
)

# A face that looks straight ahead, every factor at a known place. Only the eyes are green.
PLAIN = FaceFactors(
    hair_hue=0.83,
    hair_chroma=0.6,
    hair_lightness=0.6,
    hair_style=HAIR_STYLES.index("bob"),
    hair_length=0.5,
    fringe_style=FRINGE_STYLES.index("spiky"),
    fringe_length=0.3,
    fringe_sweep=0.0,
    ahoge=0.0,
    eye_hue=0.40,
    eye_size=0.5,
    eye_openness=1.0,
    eye_tilt=0.0,
    gaze_x=0.0,
    gaze_y=0.0,
    skin_tone=0.1,
    smile=0.5,
    mouth_open=0.6,
    brow_height=0.0,
    brow_tilt=0.0,
    blush=0.5,
    yaw=0.0,
    pitch=0.0,
    roll=0.0,
    face_width=0.0,
    chin=0.5,
    background_hue=0.07,
    background_lightness=0.5,
    background_kind=BACKGROUND_KINDS.index("plain"),
    clothes_hue=0.07,
    clothes_kind=CLOTHES_KINDS.index("round neck"),
    accessory=ACCESSORIES.index("none"),
)


def pixels(size: int = 64, **changed: float) -> np.ndarray:
    return np.asarray(draw_face(replace(PLAIN, **changed), size, size)).astype(float)


def hue(part: np.ndarray) -> float:
    """Mean colour's hue on the HSV circle, in degrees."""
    red, green, blue = part.reshape(-1, 3).mean(axis=0) / 255
    return 360 * colorsys.rgb_to_hsv(red, green, blue)[0]


def green_places(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels that are clearly green."""
    red, green, blue = np.moveaxis(image, 2, 0)
    return np.nonzero((green > red + 25) & (green > blue + 25))


def digest(seed: int, count: int, size: int) -> str:
    faces = (draw_face(draw_factors(seed, index), size, size) for index in range(count))
    return hashlib.sha256(b"".join(face.tobytes() for face in faces)).hexdigest()


# --- the same everywhere ---------------------------------------------------------------------


def test_a_fresh_process_with_other_hashes_draws_the_same_bytes():
    code = (
        "import hashlib\n"
        "from vgx_builtin.datasets.face_drawing import draw_face, draw_factors\n"
        "pictures = (draw_face(draw_factors(3, i), 48, 48).tobytes() for i in range(12))\n"
        "print(hashlib.sha256(b''.join(pictures)).hexdigest())\n"
    )
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == digest(3, 12, 48)


def test_the_chosen_numbers_are_those_of_every_other_machine():
    face = draw_factors(7, 125)
    assert face.hair_hue == pytest.approx(0.15690992934094533, abs=1e-12)
    assert face.chin == pytest.approx(0.3839482206599434, abs=1e-12)
    assert (face.hair_style, face.fringe_style, face.accessory) == (4, 2, 0)


def test_each_seed_and_index_has_its_own_face():
    faces = {
        draw_face(draw_factors(seed, index), 32, 32).tobytes()
        for seed in range(4)
        for index in range(50)
    }
    assert len(faces) == 200
    assert draw_factors(1, 23) != draw_factors(12, 3)


# --- the factors -----------------------------------------------------------------------------


def test_2000_faces_stay_in_the_documented_ranges_and_use_them():
    drawn = [draw_factors(5, index).by_name() for index in range(2000)]
    assert set(drawn[0]) == set(RANGES)
    for name, (low, high) in RANGES.items():
        values = np.array([factors[name] for factors in drawn])
        assert low <= values.min(), name
        assert values.max() <= high, name
        assert np.ptp(values) > 0.6 * (high - low), name


def test_kinds_are_ints_and_all_else_is_floats():
    """Also where a number was clipped to a bound that is written as an int."""
    kinds = {"hair_style", "fringe_style", "background_kind", "clothes_kind", "accessory"}
    clipped = replace(draw_factors(5, 0), smile=-1)
    for face in [clipped, *(draw_factors(5, index) for index in range(50))]:
        expected = face.by_name()
        assert {name for name, value in expected.items() if type(value) is int} == kinds
        assert {type(value) for value in expected.values()} == {int, float}
        assert expected == asdict(face)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("hair_style", HAIR_STYLES),
        ("fringe_style", FRINGE_STYLES),
        ("background_kind", BACKGROUND_KINDS),
        ("clothes_kind", CLOTHES_KINDS),
        ("accessory", ACCESSORIES),
    ],
)
def test_every_kind_is_drawn_and_looks_different(name, kinds):
    chosen = {getattr(draw_factors(5, index), name) for index in range(300)}
    assert chosen == set(range(len(kinds)))
    looks = {pixels(**{name: number}).tobytes() for number in chosen}
    assert len(looks) == len(kinds)


@pytest.mark.parametrize("name", list(RANGES))
def test_every_factor_changes_the_image(name):
    low, high = RANGES[name]
    # A hue's two ends are one colour.
    high = 0.5 if name.endswith("_hue") else high
    assert np.abs(pixels(**{name: low}) - pixels(**{name: high})).max() > 20


@pytest.mark.parametrize(
    ("turn", "degrees"),
    [(0.08, 12), (0.24, 45), (0.40, 130), (0.55, 187), (0.73, 220), (0.97, 340)],
)
def test_hair_has_the_hue_it_is_told(turn, degrees):
    crown = pixels(hair_hue=turn)[7:11, 28:36]
    away = abs((hue(crown) - degrees + 180) % 360 - 180)
    assert away < 15


def test_hair_lightness_makes_the_hair_lighter_and_nothing_else():
    dark, light = pixels(hair_lightness=0.1), pixels(hair_lightness=0.9)
    assert light[7:11, 28:36].mean() > dark[7:11, 28:36].mean() + 80
    assert np.array_equal(light[42:46, 29:35], dark[42:46, 29:35])
    assert np.array_equal(light[:4, :8], dark[:4, :8])


def test_closed_eyes_show_no_iris():
    rows, _ = green_places(pixels(eye_openness=1.0))
    assert len(rows) > 60
    rows, _ = green_places(pixels(eye_openness=0.0))
    assert len(rows) == 0


def test_eyes_close_and_grow_gradually():
    shown = [len(green_places(pixels(eye_openness=o))[0]) for o in (0.2, 0.5, 0.75, 1.0)]
    assert shown == sorted(set(shown))
    sizes = [len(green_places(pixels(eye_size=size))[0]) for size in (0.0, 0.5, 1.0)]
    assert sizes == sorted(set(sizes))


def test_turning_the_head_moves_the_eyes():
    left, straight, right = (green_places(pixels(yaw=yaw))[1].mean() for yaw in (-1, 0, 1))
    assert left + 2 < straight < right - 2
    up, ahead, down = (green_places(pixels(pitch=pitch))[0].mean() for pitch in (-1, 0, 1))
    assert up + 1 < ahead < down - 1


def test_tilting_the_head_to_the_right_lowers_the_right_eye():
    rows, columns = green_places(pixels(roll=1.0))
    assert rows[columns > 34].mean() > rows[columns < 30].mean() + 2


def test_gaze_moves_the_iris():
    left, right = (green_places(pixels(gaze_x=gaze))[1].mean() for gaze in (-1, 1))
    assert left + 0.5 < right


def test_skin_tone_darkens_the_skin():
    fair, dark = pixels(skin_tone=0.0), pixels(skin_tone=1.0)
    chin = (slice(51, 53), slice(30, 35))
    assert fair[chin].mean() > dark[chin].mean() + 50


def test_background_shows_in_the_corners():
    plain = pixels(background_hue=0.73)
    assert np.array_equal(plain[0, 0], plain[0, -1])
    assert abs(hue(plain[:3, :3]) - 217) < 20
    assert abs(hue(pixels(background_hue=0.40)[:3, :3]) - 125) < 25

    gradient = pixels(background_hue=0.73, background_kind=BACKGROUND_KINDS.index("gradient"))
    assert np.abs(gradient[0, 0] - plain[0, 0]).max() <= 1
    assert np.abs(gradient[0, 0] - gradient[50, 0]).max() > 10

    disc = pixels(background_hue=0.73, background_kind=BACKGROUND_KINDS.index("disc"))
    assert np.array_equal(disc[0, 0], plain[0, 0])
    assert np.abs(disc[30, 4] - plain[30, 4]).max() > 10


# --- sizes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4, 48, 64, 96, 129])
def test_images_are_rgb_and_as_large_as_asked(size):
    image = draw_face(draw_factors(0, 1), size, size)
    assert (image.mode, image.size) == ("RGB", (size, size))


def test_two_sizes_show_the_same_face():
    for index in range(10):
        factors = draw_factors(2, index)
        small = np.asarray(draw_face(factors, 64, 64)).astype(float)
        halved = np.asarray(draw_face(factors, 128, 128).reduce(2)).astype(float)
        other = np.asarray(draw_face(draw_factors(2, index + 1), 64, 64)).astype(float)
        assert np.abs(small - halved).mean() < 4
        assert np.abs(small - other).mean() > 15


# --- the dataset -----------------------------------------------------------------------------


def source(size: int = 48, **fields: int):
    import vgx
    from vgx_builtin.datasets.drawn_faces import DrawnFaces

    return DrawnFaces(**fields).build(vgx.ImageSpec(size=size))


def test_the_source_gives_count_faces_of_the_recipes_size():
    faces = source(count=3, seed=9)
    assert len(faces) == 3
    assert [face.size for face in faces] == [(48, 48)] * 3
    assert faces[2].tobytes() == draw_face(draw_factors(9, 2), 48, 48).tobytes()
    assert faces.factors(2) == draw_factors(9, 2).by_name()


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_out_of_range_is_an_index_error(index):
    faces = source(count=3)
    with pytest.raises(IndexError, match="of 3"):
        faces[index]
    with pytest.raises(IndexError, match="of 3"):
        faces.factors(index)


def test_the_fingerprint_changes_with_whatever_changes_the_data(monkeypatch):
    same = source(count=3, seed=1).fingerprint
    assert source(count=3, seed=1).fingerprint == same
    prints = {
        same,
        source(count=4, seed=1).fingerprint,
        source(count=3, seed=2).fingerprint,
        source(size=64, count=3, seed=1).fingerprint,
    }
    monkeypatch.setattr("vgx_builtin.datasets.drawn_faces.DRAWING_VERSION", 999)
    prints.add(source(count=3, seed=1).fingerprint)
    assert len(prints) == 5


def labelled(label, classes, **fields):
    import vgx
    from vgx_builtin.datasets.drawn_faces import DrawnFaces

    return DrawnFaces(label=label, **fields).build(vgx.ImageSpec(size=16, classes=classes))


@pytest.mark.parametrize(
    ("label", "kinds"), [("hair_style", HAIR_STYLES), ("accessory", ACCESSORIES)]
)
def test_labels_are_a_factor_of_the_face(label, kinds):
    import vgx

    faces = labelled(label, len(kinds), count=60, seed=4)
    assert isinstance(faces, vgx.Named)
    assert faces.classes == kinds
    labels = [faces.label(index) for index in range(60)]
    assert labels == [getattr(draw_factors(4, index), label) for index in range(60)]
    assert set(labels) == set(range(len(kinds)))
    assert len(faces) == 60
    assert faces[7].tobytes() == draw_face(draw_factors(4, 7), 16, 16).tobytes()


def test_faces_with_labels_keep_their_factors():
    import vgx

    faces, plain = labelled("accessory", 4, count=9, seed=4), source(count=9, seed=4)
    assert isinstance(faces, vgx.Factored)
    assert [faces.factors(index) for index in range(9)] == [plain.factors(i) for i in range(9)]
    assert faces.fingerprint == "drawn-faces version=1 seed=4 count=9 size=16 label=accessory"
    with pytest.raises(IndexError, match="of 9"):
        faces.label(9)


def test_the_meaning_of_labels_is_that_of_the_documentation():
    from vgx.parts.documented import field_docstrings
    from vgx_builtin.datasets.drawn_faces import DrawnFaces

    expected = " ".join(field_docstrings(DrawnFaces)["label"].split())
    for kinds in (HAIR_STYLES, ACCESSORIES):
        assert ", ".join(f"{number} {kind}" for number, kind in enumerate(kinds)) in expected


def test_faces_without_labels_are_not_labelled_and_labels_change_the_fingerprint():
    import vgx

    assert not isinstance(source(), vgx.Labelled)
    prints = {labelled("hair_style", 6).fingerprint, labelled("accessory", 4).fingerprint}
    assert len(prints | {source(size=16).fingerprint}) == 3


@pytest.mark.parametrize("classes", [0, 5, 7])
def test_the_recipe_must_know_how_many_classes_there_are(classes):
    from vgx.errors import RecipeError

    names = r"6 classes \(bob, long, twin tails, side tail, short, buns\)"
    expected = f"there are {names}, and image.classes is {classes}; set image.classes=6"
    with pytest.raises(RecipeError, match=expected):
        labelled("hair_style", classes)


def test_impossible_fields_are_refused():
    from pydantic import ValidationError

    with pytest.raises(ValidationError):
        source(count=0)
    with pytest.raises(ValidationError):
        source(seed=-1)
