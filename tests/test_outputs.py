"""What an output means: the scores of a target, and probabilities."""

import re

import numpy as np
import pytest
import torch

from gmcam.outputs import class_indices, probabilities, scores_of

LOGITS = torch.tensor([[1.0, 5.0, 2.0], [4.0, 0.0, 3.0], [-1.0, -2.0, -3.0]])

TARGETS = [  # what is requested, the indices, the scores
    (2, [2, 2, 2], [2, 3, -3]),
    (np.int64(2), [2, 2, 2], [2, 3, -3]),
    (torch.tensor(1), [1, 1, 1], [5, 0, -2]),
    ([2, 0, 1], [2, 0, 1], [2, 4, -2]),
    ((0, 0, 1), [0, 0, 1], [1, 4, -2]),
    (range(3), [0, 1, 2], [1, 0, -3]),
    (np.array([2, 1, 0]), [2, 1, 0], [2, 0, -1]),
    (torch.tensor([1, 2, 2]), [1, 2, 2], [5, 3, -3]),
    (torch.tensor([2, 1, 0], dtype=torch.int16), [2, 1, 0], [2, 0, -1]),
    (torch.tensor([0, 1, 2], dtype=torch.uint8), [0, 1, 2], [1, 0, -3]),  # not a mask
    (None, [1, 0, 0], [5, 4, -1]),
]


@pytest.mark.parametrize(("target", "indices", "scores"), TARGETS)
def test_one_index_for_all_images_or_one_each(target, indices, scores):
    values, resolved = scores_of(LOGITS, target, 3)
    assert resolved.tolist() == indices
    assert resolved.dtype == torch.long
    assert values.tolist() == scores


@pytest.mark.parametrize("target", [[2, 2, 0, 1], torch.tensor([2, 2, 0, 1], dtype=torch.uint8)], ids=repr)
def test_any_number_of_classes_of_a_single_image(target):
    values, resolved = scores_of(LOGITS[:1], target, 1)
    assert resolved.tolist() == [2, 2, 0, 1]
    assert values.tolist() == [2, 2, 1, 5]


@pytest.mark.parametrize("target", [None, 1, [], lambda logits: logits[:, 0]], ids=repr)
def test_no_image_has_no_score(target):
    values, _ = scores_of(LOGITS[:0], target, 0)
    assert values.shape == (0,)


def test_a_function_receives_the_whole_output():
    output = torch.arange(24.0).reshape(2, 3, 2, 2)

    def mean_of_last(maps):
        return maps[:, 2].mean((1, 2))

    values, resolved = scores_of(output, mean_of_last, 2)
    assert resolved is mean_of_last
    assert values.tolist() == [9.5, 21.5]


def test_scores_are_differentiable_in_the_output():
    logits = LOGITS.clone().requires_grad_()
    scores_of(logits, [2, 0, 1], 3)[0].sum().backward()
    assert logits.grad.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]


def test_the_callers_tensor_of_targets_is_copied():
    target = torch.tensor([2, 0, 1])
    _, resolved = scores_of(LOGITS, target, 3)
    target.zero_()
    assert resolved.tolist() == [2, 0, 1]


@pytest.mark.parametrize("target", [2, [2, 0, 1], None], ids=repr)
def test_indices_are_on_the_device_of_the_output(target):
    values, resolved = scores_of(LOGITS.to("meta"), target, 3)  # a device without values
    assert values.device == resolved.device == torch.device("meta")


UNFIT = [
    (3, "a class from 0 to 2, got 3"),
    ([0, -1, 2], "a class from 0 to 2, got -1"),
    ([0, 1], "targets for 3 images, got 2"),
    ([], "at least one target, got an empty list"),
    (1.0, "class indices as target, got 1.0"),
    ([True, False, True], "class indices as target"),
    ([[0, 1, 2]], "class indices as target"),
    ([[0], [1, 2]], "class indices as target"),
    ([None, 1, 2], "class indices as target"),
    ("cat", "class indices as target, got 'cat'"),
    (lambda y: y, "one scalar per image, (3,), got (3, 3)"),
    (lambda y: y.sum(), "one scalar per image, (3,), got ()"),
    (lambda y: 1.0, "one scalar per image, (3,), got float"),
]


@pytest.mark.parametrize(("target", "message"), UNFIT)
def test_targets_that_do_not_fit_are_refused(target, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        scores_of(LOGITS, target, 3)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "output", [torch.zeros(3), torch.zeros(3, 4, 2, 2), torch.zeros(6, 4), torch.zeros(())]
)
def test_classes_need_one_row_of_logits_per_image(output):
    for target in (0, None, [0, 1, 2]):
        with pytest.raises(ValueError, match=re.escape(f"(N, classes), got {tuple(output.shape)}")):
            scores_of(output, target, 3)


def test_class_indices_keep_their_number_of_axes():
    assert class_indices(2, 3).ndim == 0
    assert class_indices([2], 3).tolist() == [2]


def test_probabilities_are_the_softmax():
    expected = np.exp(LOGITS.numpy()) / np.exp(LOGITS.numpy()).sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities(LOGITS).numpy(), expected, rtol=1e-6)
    assert probabilities(LOGITS.double()).dtype == torch.float64
    for dtype in (torch.float16, torch.bfloat16):
        rough = probabilities(LOGITS.to(dtype))
        assert rough.dtype == torch.float32
        assert torch.allclose(rough.sum(1), torch.ones(3), atol=1e-6)


def test_probabilities_of_what_is_not_a_classifiers_output_are_refused():
    with pytest.raises(ValueError, match="expected an output"):
        probabilities(torch.zeros(2, 3, 4, 4))
