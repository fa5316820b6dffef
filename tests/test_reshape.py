import pytest
import torch

from gmcam import Network, reshape

CELLS = torch.arange(2 * 6 * 3.0).reshape(2, 6, 3)  # two images, six tokens, three channels


def test_tokens_run_along_the_rows():
    maps = reshape.tokens(grid=(2, 3))(CELLS)
    assert maps.shape == (2, 3, 2, 3)
    assert maps[1, 2].tolist() == [[20, 23, 26], [29, 32, 35]]


@pytest.mark.parametrize(("prefix", "grid"), [(2, None), (None, (2, 2)), (None, None), (2, (2, 2))])
def test_tokens_before_the_grid_are_dropped(prefix, grid):
    assert torch.equal(reshape.tokens(prefix, grid)(CELLS), CELLS[:, 2:].transpose(1, 2).reshape(2, 3, 2, 2))


def test_the_smallest_prefix_that_leaves_a_square_is_chosen():
    assert reshape.tokens()(torch.rand(1, 9, 2)).shape == (1, 2, 3, 3)
    assert reshape.tokens()(torch.rand(1, 201, 2)).shape == (1, 2, 14, 14)


def test_a_signals_tokens_have_one_dimension():
    assert reshape.tokens(1, (5,))(CELLS).shape == (2, 3, 5)


def test_tokens_first_are_tokens_with_the_batch_second():
    first = reshape.tokens_first(prefix=2)
    assert torch.equal(first(CELLS.transpose(0, 1)), reshape.tokens(prefix=2)(CELLS))


def test_channels_last_come_first():
    volume = torch.rand(2, 3, 4, 5, 6)
    assert torch.equal(reshape.channels_last()(volume), volume.permute(0, 4, 1, 2, 3))
    assert torch.equal(reshape.channels_last()(CELLS), CELLS.transpose(1, 2))


def test_frames_become_a_dimension_of_each_video():
    maps, arrange = torch.rand(6, 4, 2, 5), reshape.frames(3)
    assert arrange.count == 3
    assert arrange(maps).shape == (2, 4, 3, 2, 5)
    assert torch.equal(arrange(maps)[1, :, 2], maps[5])
    assert arrange(maps[:0]).shape == (0, 4, 3, 2, 5)


MISFITS = [
    (reshape.tokens(prefix=1), CELLS, r"1 tokens before a square of tokens, got 6 in \(2, 6, 3\): .* prefix"),
    (reshape.tokens(grid=(4, 4)), CELLS, r"0 to 8 tokens before 4×4 of tokens, got 6"),
    (reshape.tokens(prefix=9), CELLS, r"9 tokens before a square"),
    (reshape.tokens(), CELLS[0], r"expected tokens \(N, L, K\), got \(6, 3\)"),
    (reshape.tokens_first(), CELLS[0], r"expected tokens \(L, N, K\), got \(6, 3\)"),
    (reshape.channels_last(), CELLS[0], r"expected \(N, …, K\), got \(6, 3\)"),
    (reshape.frames(4), torch.rand(6, 4, 2, 5), r"expected maps \(N·4, K, h, w\), got \(6, 4, 2, 5\)"),
    (reshape.frames(3), CELLS, r"got \(2, 6, 3\)"),
]


@pytest.mark.parametrize(("arrange", "output", "message"), MISFITS)
def test_what_does_not_fit_is_refused(arrange, output, message):
    with pytest.raises(ValueError, match=message):
        arrange(output)


def test_a_video_has_at_least_one_frame():
    with pytest.raises(ValueError, match="at least one frame per video, got 0"):
        reshape.frames(0)


def test_maps_of_frames_are_maps_of_the_video():
    class Video(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cnn, self.rnn = torch.nn.Conv2d(3, 4, 2, 2), torch.nn.LSTM(4, 5, batch_first=True)

        def forward(self, clips):
            maps = self.cnn(clips.flatten(0, 1))
            return self.rnn(maps.mean((2, 3)).view(*clips.shape[:2], -1))[0][:, -1]

    network = Network(Video(), input_shape=(3, 3, 8, 8), reshape=reshape.frames(3))
    assert network.layers == {"3x4x4": "cnn"}
    assert network.layer_path() == "cnn"
    assert network.as_maps(torch.rand(6, 4, 4, 4), "cnn").shape == (2, 4, 3, 4, 4)
