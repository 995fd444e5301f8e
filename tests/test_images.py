"""Images: batched views against slow ones, decoding, the cache, and a run on a mirror's images."""

import doctest
import io
from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fedlora_kit import paths
from fedlora_kit.data import image_ops, images, tasks
from fedlora_kit.data.class_names import CIFAR100, FOOD101
from fedlora_kit.data.encoded import encode_images, for_training
from fedlora_kit.data.image_ops import AUGMENTS, ImageInput, Views, draw_views, prepare, resample, whole
from fedlora_kit.data.images import decode
from fedlora_kit.data.origin import origin
from fedlora_kit.data.sources import fingerprint, load_task
from fedlora_kit.data.task import Examples, Task
from fedlora_kit.data.tasks import get_task
from fedlora_kit.errors import BadValue, FedloraError, UnknownName

CPU = torch.device("cpu")


def test_doctests():
    assert doctest.testmod(image_ops).failed == 0


# --- views, batched ------------------------------------------------------------------------------


def slow_view(image, box, flip, size):
    """One image, by hand: the box (black beyond the border), torch's own antialiased resizing, the mirror."""
    top, left, height, width = box
    cut = torch.zeros(image.shape[0], height, width)
    for y in range(height):
        for x in range(width):
            if 0 <= top + y < image.shape[1] and 0 <= left + x < image.shape[2]:
                cut[:, y, x] = image[:, top + y, left + x]
    out = torch.nn.functional.interpolate(cut[None], size=(size, size), mode="bilinear", antialias=True)[0]
    return out.flip(-1) if flip else out


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.sampled_from(AUGMENTS), st.integers(1, 11), st.integers(4, 10))
def test_a_batch_of_views_equals_one_image_after_the_other(seed, augment, size, side):
    rng = np.random.default_rng(seed)
    pixels = torch.from_numpy(rng.random((3, 2, side, side + 2), dtype=np.float32))
    views = draw_views(rng, 3, side, side + 2, augment)
    fast = resample(pixels, views, size)
    for i in range(3):
        slow = slow_view(pixels[i], views.boxes[i].tolist(), bool(views.flips[i]), size)
        assert torch.allclose(fast[i], slow, atol=1e-5)


def test_resizing_agrees_with_pillow():
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    pillow = np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR), dtype=np.float32)
    ours = resample(torch.from_numpy(image.transpose(2, 0, 1)).float()[None], whole(1, 40, 40), 16)[0]
    assert np.abs(ours.permute(1, 2, 0).numpy() - pillow).max() < 1.01  # Pillow rounds to whole numbers


@pytest.mark.parametrize("augment", AUGMENTS)
def test_views_do_not_depend_on_how_a_batch_is_cut(augment):
    together = draw_views(np.random.default_rng(3), 7, 16, 16, augment)
    rng = np.random.default_rng(3)
    pieces = [draw_views(rng, n, 16, 16, augment) for n in (2, 1, 4)]
    assert np.array_equal(together.boxes, np.concatenate([p.boxes for p in pieces]))
    assert np.array_equal(together.flips, np.concatenate([p.flips for p in pieces]))


def test_views_vary_as_they_say():
    n = 4000
    crop = draw_views(np.random.default_rng(0), n, 32, 32, "crop_flip")
    assert set(crop.boxes[:, 0]) == set(crop.boxes[:, 1]) == set(range(-4, 5))
    assert (crop.boxes[:, 2:] == 32).all()
    assert abs(crop.flips.mean() - 0.5) < 0.04
    zoom = draw_views(np.random.default_rng(0), n, 32, 32, "zoom_flip").boxes
    assert (zoom[:, :2] >= 0).all()
    assert (zoom[:, :2] + zoom[:, 2:] <= 32).all()
    share = zoom[:, 2] * zoom[:, 3] / 32**2
    assert 0.45 < share.min() < 0.55
    assert share.max() == 1
    assert not draw_views(np.random.default_rng(0), 9, 8, 8, "none").flips.any()
    with pytest.raises(UnknownName, match="crop_flip"):
        draw_views(np.random.default_rng(0), 1, 8, 8, "crop_flop")


def test_prepared_pixels():
    colour = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1).expand(2, 3, 4, 4)
    out = prepare(colour, whole(2, 4, 4), ImageInput(4, 3, (0.0, 0.2, 0.5), (1.0, 0.5, 0.5)))
    assert out.dtype == torch.float32
    assert torch.allclose(out[0, :, 0, 0], torch.tensor([0.0, 0.0, 1.0]), atol=1e-6)
    assert prepare(colour, whole(2, 4, 4), ImageInput(7)).shape == (2, 3, 7, 7)
    grey = torch.randn(2, 1, 4, 4)
    assert torch.equal(prepare(grey, whole(2, 4, 4), ImageInput(4)), grey.expand(2, 3, 4, 4))
    same = prepare(grey, whole(2, 4, 4), ImageInput(4, 1, (0.5,), (0.5,)))
    assert torch.equal(same, grey)  # float32 images of the right size are taken as they are
    mirrored = prepare(grey, Views(whole(2, 4, 4).boxes, np.array([True, False])), ImageInput(4, 1))
    assert torch.allclose(mirrored[0], grey[0].flip(-1))
    assert torch.allclose(mirrored[1], grey[1])


# --- encoded images ------------------------------------------------------------------------------


def some_images(n=6, side=8):
    rng = np.random.default_rng(1)
    return Examples((rng.integers(0, 256, (n, 3, side, side), dtype=np.uint8),), np.arange(n) % 3)


def test_bytes_stay_bytes_until_a_batch_is_made():
    examples = some_images()
    data = encode_images(examples, ImageInput(4, tokens=5))
    assert data.pixels is examples.columns[0]  # neither computed nor copied
    part = data.subset(np.array([5, 1, 3])).subset(np.array([2, 0]))
    assert part.pixels is data.pixels
    inputs, labels = part.batch(np.array([0, 1]), CPU)
    whole_inputs, _ = data.batch(np.array([3, 5]), CPU)
    assert torch.equal(inputs["pixel_values"], whole_inputs["pixel_values"])
    assert inputs["pixel_values"].shape == (2, 3, 4, 4)
    assert labels.tolist() == [0, 2]
    assert data.lengths.tolist() == [5] * 6


def test_only_training_sees_views_and_the_same_ones_again():
    data = replace(encode_images(some_images(), ImageInput(8)), augment="crop_flip")
    rows = np.arange(6)
    plain = data.batch(rows, CPU)[0]["pixel_values"]
    assert torch.equal(plain, encode_images(some_images(), ImageInput(8)).batch(rows, CPU)[0]["pixel_values"])
    one, again, other = (
        for_training(data, np.random.default_rng(s)).batch(rows, CPU)[0]["pixel_values"] for s in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one, plain)
    untouched = encode_images(some_images(), ImageInput(8))
    assert for_training(untouched, np.random.default_rng(0)) is untouched


def test_columns_that_are_no_images():
    with pytest.raises(BadValue, match="uint8 or float32"):
        encode_images(Examples((["a"],), np.array([0])), ImageInput(4))
    with pytest.raises(BadValue, match="normalised"):
        encode_images(some_images())


# --- decoding ------------------------------------------------------------------------------------


def png(array):
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG")
    return out.getvalue()


def test_decoding_is_lossless_and_gives_colour():
    array = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(decode({"bytes": png(array), "path": None}, None, "x"), array.transpose(2, 0, 1))
    grey = decode(png(array[:, :, 0]), None, "x")
    assert grey.shape == (3, 5, 7)
    assert (grey == grey[0]).all()


def test_the_middle_square_is_resized():
    array = np.zeros((8, 20, 3), dtype=np.uint8)
    array[:, 6:14] = 200  # the middle square of an image 20 wide and 8 high
    assert (decode(png(array), 4, "x") == 200).all()
    kept = decode(png(array), 4, "x", fit="stretch")  # all of the image, its edges too
    assert kept.shape == (3, 4, 4)
    assert (kept != 200).any()


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (b"no image", "row 3 of x cannot be decoded"),
        (
            png(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8))[:150],
            "row 3 of x cannot be decoded",
        ),
        ({"bytes": None, "path": "lost.png"}, "row 3 of x holds the path of an image .lost.png"),
        (None, "row 3 of x holds a NoneType"),
    ],
)
def test_a_damaged_image_names_its_row_and_the_remedy(value, problem):
    with pytest.raises(FedloraError, match=problem) as error:
        decode(value, None, "row 3 of x")
    assert "fetch" in error.value.remedy


# --- a mirror ------------------------------------------------------------------------------------


def write_split(folder, split, values, labels):
    folder.mkdir(parents=True, exist_ok=True)
    table = datasets.Dataset.from_dict({"img": values, "fine_label": labels})
    table.cast_column("img", datasets.Image()).to_parquet(str(folder / f"{split}.parquet"))


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """CIFAR-100 in small: 8 x 8 images whose colour tells the class, classes 48 to 53."""
    monkeypatch.setenv("FEDLORA_HUB", str(tmp_path / "hub"))
    monkeypatch.setattr(paths, "data_dir", lambda: tmp_path / "data")
    folder = tmp_path / "hub" / "datasets" / "uoft-cs" / "cifar100"
    rng = np.random.default_rng(0)
    for split, n in (("train", 36), ("test", 12)):
        labels = [48 + i % 6 for i in range(n)]
        pixels = [np.clip(rng.normal(40 * (y - 48), 9, (8, 8, 3)), 0, 255).astype(np.uint8) for y in labels]
        write_split(folder, split, [{"bytes": png(p), "path": None} for p in pixels], labels)
    return folder


def test_a_mirrors_images_are_decoded_once(mirror, monkeypatch):
    assert origin(get_task("cifar100"), "train").files == (mirror / "train.parquet",)
    first = load_task(get_task("cifar100"))
    assert first.train.columns[0].shape == (36, 3, 8, 8)
    assert first.train.columns[0].dtype == np.uint8
    assert isinstance(first.train.columns[0], np.memmap)
    assert first.evals["test"].labels.tolist() == [48 + i % 6 for i in range(12)]
    monkeypatch.setattr(images, "decode", lambda *a, **k: pytest.fail("decoded twice"))
    again = load_task(get_task("cifar100"))
    assert np.array_equal(first.train.columns[0], again.train.columns[0])
    assert not list((paths.data_dir() / "cache" / "images").glob("*.tmp"))


def test_half_of_the_classes_under_new_numbers(mirror):
    half = replace(get_task("cifar100"), label_names=CIFAR100[50:], classes=tuple(range(50, 100)))
    rest = load_task(half)
    assert sorted(set(rest.train.labels)) == [0, 1, 2, 3]  # 50 to 53
    everything = load_task(get_task("cifar100")).train
    rows = np.flatnonzero(everything.labels >= 50)
    assert np.array_equal(rest.train.columns[0], everything.columns[0][rows])
    assert np.array_equal(rest.train.labels, everything.labels[rows] - 50)
    assert fingerprint(half) != fingerprint(get_task("cifar100"))


def test_changed_bytes_are_decoded_again(mirror):
    before = load_task(get_task("cifar100")).train.columns[0][0].copy()
    write_split(mirror, "train", [{"bytes": png(np.full((8, 8, 3), 9, np.uint8)), "path": None}], [0])
    after = load_task(get_task("cifar100")).train
    assert len(after) == 1
    assert (after.columns[0] == 9).all()
    assert not np.array_equal(before, after.columns[0][0])


def test_a_damaged_cache_is_made_anew(mirror):
    good = np.array(load_task(get_task("cifar100")).train.columns[0])
    for file in (paths.data_dir() / "cache" / "images").glob("*/images.npy"):
        file.write_bytes(file.read_bytes()[:200])
    assert np.array_equal(load_task(get_task("cifar100")).train.columns[0], good)


def test_a_damaged_image_in_the_mirror(mirror):
    good = {"bytes": png(np.zeros((8, 8, 3), np.uint8)), "path": None}
    write_split(mirror, "train", [good, {"bytes": b"x", "path": None}], [0, 1])
    with pytest.raises(FedloraError, match=r"row 1 of uoft-cs/cifar100 \(train\)"):
        load_task(get_task("cifar100"))
    assert not list((paths.data_dir() / "cache" / "images").iterdir())  # nothing half done is left


def test_images_of_different_sizes(mirror):
    sizes = [{"bytes": png(np.full((h, w, 3), 50, np.uint8)), "path": None} for h, w in ((8, 8), (6, 9))]
    write_split(mirror, "train", sizes, [0, 1])
    with pytest.raises(FedloraError, match=r"row 1 .* 9 × 6 pixels, the first one of 8 × 8") as error:
        load_task(get_task("cifar100"))
    assert "store_side" in error.value.remedy
    loaded = load_task(replace(get_task("cifar100"), store_side=5))
    assert loaded.train.columns[0].shape == (2, 3, 5, 5)


def test_a_missing_split_and_a_wrong_column(mirror):
    (mirror / "test.parquet").unlink()
    with pytest.raises(FedloraError, match=r"datasets/uoft-cs/cifar100/test.parquet"):
        load_task(get_task("cifar100"))
    datasets.Dataset.from_dict({"picture": ["x"], "fine_label": [0]}).to_parquet(
        str(mirror / "train.parquet")
    )
    with pytest.raises(FedloraError, match="no column img"):
        load_task(get_task("cifar100"))


def test_food101_is_read_in_the_hubs_layout(hub_server):
    values = [{"bytes": png(np.full((h, w, 3), 7, np.uint8)), "path": None} for h, w in ((9, 12), (20, 8))]
    table = datasets.Dataset.from_dict({"image": values, "label": [3, 100]})
    out = io.BytesIO()
    table.cast_column("image", datasets.Image()).to_parquet(out)
    names = ("data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet")
    files = dict.fromkeys(names, out.getvalue())
    hub_server.add("ethz/food101", files, commit=get_task("food101").revision, kind="dataset", refs=())
    loaded = load_task(get_task("food101"))
    assert loaded.train.columns[0].shape == (2, 3, 256, 256)
    assert loaded.train.labels.tolist() == [3, 100]


def test_class_names():
    assert len(set(CIFAR100)) == 100
    assert len(set(FOOD101)) == 101
    assert CIFAR100[50] == "mouse"
    assert get_task("food101").num_labels == 101


def test_handed_over_images_count_by_their_content(monkeypatch):
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    rows = some_images()
    mine = Task("mine", "image", ("a", "b", "c"), ("image",), loader=lambda split: rows)
    other = Task("mine", "image", ("a", "b", "c"), ("image",), loader=lambda s: rows.take(np.arange(5)))
    assert fingerprint(mine) != fingerprint(other)
