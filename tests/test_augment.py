import random

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

import naive
from gracl.data.augment import augment

WHITE = (255, 255, 255)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def move(images, generator, *, flip, pad):
    return augment(images, generator, flip=flip, pad=pad, erase=0.0)


def erase(images, generator, fill):
    return augment(images, generator, flip=0.0, pad=0, erase=1.0, fill=fill)


def jitter(images, generator, strength):
    return augment(images, generator, flip=0.0, pad=0, erase=0.0, color=strength)


def make_images(n=6, height=12, width=8, low=0):
    return torch.randint(low, 256, (n, 3, height, width), generator=generator(9)).to(torch.uint8)


def rectangles(height, width, n, seed=0):
    """(n, 4) top, left, height, width of what random erasing makes white; n drawn, all erased."""
    black = torch.zeros(n, 3, height, width, dtype=torch.uint8)
    white = erase(black, generator(seed), WHITE)[:, 0] == 255
    rows, columns = white.any(dim=2), white.any(dim=1)
    sizes = torch.stack([rows.sum(dim=1), columns.sum(dim=1)])
    assert torch.equal(sizes.prod(dim=0), white.sum(dim=(1, 2))), "the white part is a rectangle"
    corner = torch.stack([rows.int().argmax(dim=1), columns.int().argmax(dim=1)])
    return torch.cat([corner, sizes]).T.numpy()


@pytest.mark.parametrize("size", [(12, 8), (1, 1), (5, 7)])
def test_flip_one_and_pad_zero_is_the_mirror(size):
    images = make_images(4, *size)
    found = augment(images, generator(), flip=1.0, pad=0, erase=0.0)
    assert torch.equal(found, images.flip(3))


def test_with_everything_off_nothing_changes():
    images = make_images()
    assert torch.equal(augment(images, generator(), flip=0.0, pad=0, erase=0.0, color=0.0), images)


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("pad", [1, 3, 9])
def test_each_crop_is_one_shift_of_the_padded_image(flip, pad):
    images = make_images(40, 7, 5, low=1)
    found = move(images, generator(pad), flip=flip, pad=pad).numpy()
    span = range(-pad, pad + 1)
    for before, after in zip(images.numpy(), found, strict=True):
        possible = [naive.flip_and_crop(before, flip == 1, y, x, pad) for y in span for x in span]
        assert any(np.array_equal(after, crop) for crop in possible)


def test_shifts_are_uniform_and_independent_of_the_flip():
    n, pad = 20_000, 2
    image = torch.zeros(1, 3, 7, 9, dtype=torch.uint8)
    image[:, 0, 3, 4], image[:, 1, 3, 3], image[:, 2, 3, 5] = 255, 255, 255
    found = move(image.expand(n, -1, -1, -1), generator(), flip=0.5, pad=pad)
    middle = found[:, 0].flatten(1).int().argmax(dim=1)
    down, right = 3 - middle // 9, 4 - middle % 9
    mirrored = found[:, 1].flatten(1).int().argmax(dim=1) > middle
    cells = (mirrored * 25 + (down + pad) * 5 + (right + pad)).bincount(minlength=50)
    expected = n / 50
    assert len(cells) == 50
    assert ((cells - expected) ** 2 / expected).sum() < 95, "chi squared, 49 degrees: p is 1e-4"


@pytest.mark.parametrize("flip", [0.0, 0.2, 1.0])
def test_flip_is_the_share_of_mirrored_images(flip):
    images = make_images(1).expand(5000, -1, -1, -1)
    found = move(images, generator(), flip=flip, pad=0)
    mirrored = (found == images.flip(3)).flatten(1).all(dim=1)
    assert ((found == images).flatten(1).all(dim=1) ^ mirrored).all()
    assert abs(mirrored.float().mean() - flip) <= 0.025 * (0 < flip < 1)


@pytest.mark.parametrize("size", [(48, 24), (20, 20)])
def test_erased_rectangles_are_distributed_as_those_of_a_loop_over_images(size):
    n = 5000
    draws = random.Random(0)
    found = rectangles(*size, n)
    expected = np.array([naive.random_rectangle(*size, draws) for _ in range(n)])
    for what, measure in {
        "area": lambda boxes: boxes[:, 2] * boxes[:, 3],
        "height": lambda boxes: boxes[:, 2],
        "width": lambda boxes: boxes[:, 3],
        "top": lambda boxes: boxes[:, 0],
        "left": lambda boxes: boxes[:, 1],
        "bottom": lambda boxes: boxes[:, 0] + boxes[:, 2],
        "right": lambda boxes: boxes[:, 1] + boxes[:, 3],
        "shape": lambda boxes: boxes[:, 2] / boxes[:, 3],
    }.items():
        # 0.041 is the distance of two equal distributions at p = 4e-4
        assert ks_2samp(measure(found), measure(expected)).statistic < 0.041, what
    assert np.corrcoef(found[:, 0], found[:, 1])[0, 1] == pytest.approx(
        np.corrcoef(expected[:, 0], expected[:, 1])[0, 1], abs=0.08
    )


def test_erased_areas_and_shapes_keep_to_their_bounds():
    boxes = rectangles(60, 60, 3000)
    share = boxes[:, 2] * boxes[:, 3] / 3600
    assert 0.015 < share.min() < 0.03
    assert 0.37 < share.max() < 0.42
    shape = boxes[:, 2] / boxes[:, 3]
    assert 0.25 < shape.min() < 0.35
    assert 2.8 < shape.max() < 4
    assert (boxes[:, :2] + boxes[:, 2:]).max() == 60
    assert boxes[:, :2].min() == 0


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_erase_is_the_share_of_erased_images(probability):
    black = torch.zeros(4000, 3, 20, 10, dtype=torch.uint8)
    found = augment(black, generator(), flip=0.5, pad=0, erase=probability, fill=WHITE)
    share = (found == 255).flatten(1).any(dim=1).float().mean()
    assert abs(share - probability) <= 0.03 * (0 < probability < 1)


def test_erased_pixels_take_the_fill_and_the_others_stay():
    images = make_images(200, 20, 10, low=10)
    found = erase(images, generator(), (1, 2, 3))
    erased = (found == torch.tensor([1, 2, 3])[:, None, None]).all(dim=1, keepdim=True)
    assert erased.flatten(1).any(dim=1).all()
    assert torch.equal(found.where(~erased, 0), images.where(~erased, 0))


def test_an_image_that_no_rectangle_fits_is_left_as_it_is():
    line = make_images(50, 1, 12)
    assert torch.equal(erase(line, generator(), WHITE), line)


def test_the_same_generator_state_gives_the_same_batch():
    images = make_images(20)
    one, two, other = (augment(images, generator(s), color=0.3) for s in (5, 5, 6))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("settings", [{}, {"flip": 0.0, "erase": 0.0}, {"color": 0.3}])
def test_the_generator_moves_by_the_same_amount_whatever_the_images_hold(settings):
    states = []
    for images in (make_images(), torch.zeros_like(make_images())):
        draws = generator()
        augment(images, draws, **settings)
        states.append(draws.get_state())
    assert torch.equal(*states)
    assert not torch.equal(states[0], generator().get_state())


def test_global_random_state_is_neither_read_nor_moved():
    images = make_images(20)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one = augment(images, generator(), color=0.3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(augment(images, generator(), color=0.3), one)


@pytest.mark.parametrize("settings", [{}, {"color": 0.5}, {"flip": 0.0, "pad": 0, "erase": 0.0}])
def test_bytes_stay_bytes_and_the_input_is_not_modified(settings):
    images = make_images(30)
    before = images.clone()
    found = augment(images, generator(), **settings)
    assert found.dtype == torch.uint8
    assert found.shape == images.shape
    found.zero_()
    assert torch.equal(images, before)


def test_an_empty_batch_stays_empty():
    assert augment(make_images(0), generator(), color=0.5).shape == (0, 3, 12, 8)


def test_color_zero_changes_nothing_and_color_changes_something():
    images = make_images()
    still = {"flip": 0.0, "pad": 0, "erase": 0.0}
    assert torch.equal(augment(images, generator(), color=0.0, **still), images)
    assert torch.equal(jitter(images, generator(), strength=0.0), images)
    assert not torch.equal(augment(images, generator(), color=0.3, **still), images)


@pytest.mark.parametrize("strength", [0.1, 0.5, 1.0])
def test_brightness_of_a_grey_image_is_uniform_within_its_strength(strength):
    """Contrast and saturation leave an image of one grey as it is."""
    grey = torch.full((4000, 3, 2, 2), 100, dtype=torch.uint8)
    found = jitter(grey, generator(), strength=strength).float()
    assert (found == found[:, :1, :1, :1]).all()
    expected = np.round(100 * np.linspace(1 - strength, 1 + strength, 4000))
    assert expected.min() - 1 <= found.min()
    assert found.max() <= expected.max() + 1
    assert ks_2samp(found[:, 0, 0, 0].numpy(), expected).statistic < 0.04


def test_color_change_follows_its_definition():
    images = make_images(5)
    factors = torch.empty(3, 5).uniform_(1 - 0.4, 1 + 0.4, generator=generator(2)).double()
    found = jitter(images, generator(2), strength=0.4)
    luma = np.array([0.299, 0.587, 0.114])
    for i, image in enumerate(images.double().numpy()):
        brightness, contrast, saturation = factors[:, i].tolist()
        pixels = np.clip(image * brightness, 0, 255)
        mean = np.tensordot(luma, pixels, 1).mean()
        pixels = np.clip(mean + contrast * (pixels - mean), 0, 255)
        grey = np.tensordot(luma, pixels, 1)
        pixels = np.clip(grey + saturation * (pixels - grey), 0, 255)
        assert np.abs(found[i].double().numpy() - pixels).max() <= 0.501
