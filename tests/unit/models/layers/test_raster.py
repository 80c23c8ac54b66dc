"""Pixel networks follow their papers: masked convolutions, and cells that read the row above."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.models.layers.raster import MaskedConvolution, column_of, taps
from pipeline.models.pixel_cnn import PixelCNN
from pipeline.models.row_lstm import RowLayer, RowLSTM

ROWS, COLUMNS, WIDTH = 5, 6, 8


def pixels() -> Tensor:
    torch.manual_seed(3)
    return torch.randn(2, ROWS * COLUMNS, WIDTH, dtype=torch.float64)


def columns_of(inputs: Tensor) -> Tensor:
    return column_of(torch.zeros(len(inputs), dtype=torch.long), inputs.shape[1], COLUMNS)


def two_dimensional(convolution: MaskedConvolution, seen: list[tuple[int, int]], inputs: Tensor, kernel: int) -> Tensor:
    """The same convolution by torch, its kernel masked with zeros."""
    whole = torch.zeros(convolution.kernel.out_features, WIDTH, kernel, kernel, dtype=torch.float64)
    for (up, right), part in zip(seen, convolution.kernel.weight.split(WIDTH, 1), strict=True):
        whole[:, :, kernel // 2 - up, kernel // 2 + right] = part
    image = inputs.transpose(1, 2).reshape(2, WIDTH, ROWS, COLUMNS)
    return F.conv2d(image, whole, convolution.kernel.bias, padding=kernel // 2).flatten(2).transpose(1, 2)


@pytest.mark.numeric
@pytest.mark.parametrize("kernel", [3, 5])
def test_mask_b_is_a_convolution_whose_later_half_is_zero(kernel: int) -> None:
    inputs, seen = pixels(), taps(kernel, 1, True)
    assert len(seen) == kernel**2 // 2 + 1
    convolution = MaskedConvolution(WIDTH, 4, seen, COLUMNS).double()
    found, _ = convolution(inputs, columns_of(inputs), None)
    torch.testing.assert_close(found, two_dimensional(convolution, seen, inputs, kernel))


@pytest.mark.numeric
@pytest.mark.parametrize("kernel", [3, 5])
def test_mask_a_excludes_its_own_pixel(kernel: int) -> None:
    inputs, seen = pixels(), taps(kernel, 1, False)
    assert len(seen) == kernel**2 // 2
    convolution = MaskedConvolution(WIDTH, 4, seen, COLUMNS, own=False).double()
    read = F.pad(inputs, (0, 0, 1, 0))[:, :-1]  # zeros start the image; then each position reads the previous pixel
    found, _ = convolution(read, columns_of(inputs), None)
    expected = two_dimensional(convolution, seen, inputs, kernel)
    before = seen.index((0, -1))
    last = read[:, ::COLUMNS] @ convolution.kernel.weight[:, before * WIDTH : (before + 1) * WIDTH].T
    expected[:, ::COLUMNS] += last  # which is read across the edge of a row
    torch.testing.assert_close(found, expected)


def test_a_neighbour_in_colour_has_all_its_channels() -> None:
    assert taps(3, 3, True) == [(1, right) for right in range(-3, 4)] + [(0, right) for right in range(-3, 1)]


@pytest.mark.numeric
def test_a_row_lstm_is_its_formula_pixel_by_pixel() -> None:
    torch.manual_seed(4)
    layer, inputs = RowLayer(WIDTH, 7, 1, COLUMNS, 0.0).double().eval(), pixels()
    found, _ = layer(inputs, columns_of(inputs), None)
    normed = layer.norm(inputs).view(2, ROWS, COLUMNS, WIDTH)
    left, own = layer.input.kernel.weight.split(WIDTH, 1)
    above = layer.recurrent.weight.split(7, 1)
    hidden, cells = torch.zeros(2, ROWS + 1, COLUMNS + 2, 7).double(), torch.zeros(2, ROWS + 1, COLUMNS + 2, 7).double()
    for row in range(ROWS):
        for column in range(COLUMNS):
            gates = normed[:, row, column] @ own.T + layer.input.kernel.bias
            if column:
                gates = gates + normed[:, row, column - 1] @ left.T
            for step, weight in enumerate(above):
                gates = gates + hidden[:, row, column + step] @ weight.T  # padded by a row and a column of zeros
            admit, forget, read, content = gates.chunk(4, -1)
            cell = torch.sigmoid(forget) * cells[:, row, column + 1] + torch.sigmoid(admit) * torch.tanh(content)
            cells[:, row + 1, column + 1] = cell
            hidden[:, row + 1, column + 1] = torch.sigmoid(read) * torch.tanh(cell)
    expected = inputs + layer.mix(hidden[:, 1:, 1:-1].reshape(2, ROWS * COLUMNS, 7))
    torch.testing.assert_close(found, expected)


def seen_by(network: torch.nn.Module, position: int) -> Tensor:
    """Return the inputs that an output depends on, as rows and columns of the image, without the first token."""
    inputs = pixels().requires_grad_()
    network(inputs)[0][:, position].square().sum().backward()
    assert inputs.grad is not None
    touched = inputs.grad.abs().sum((0, 2)) > 0
    return torch.cat([touched[1:], torch.tensor([False])]).view(ROWS, COLUMNS)


@pytest.mark.numeric
def test_the_receptive_field_of_a_pixel_cnn_is_above_and_to_the_left() -> None:
    network = PixelCNN(WIDTH, depth=1, kernel=3, first_kernel=3, columns=COLUMNS).double().eval()
    expected = torch.zeros(ROWS, COLUMNS, dtype=torch.bool)
    expected[1, 1:6] = expected[2, 1:5] = expected[3, 1:3] = True  # two steps to the left, up, and up to the right
    assert torch.equal(seen_by(network, 3 * COLUMNS + 3), expected)


def test_the_receptive_field_of_a_row_lstm_is_a_triangle() -> None:
    network = RowLSTM(WIDTH, depth=1, first_kernel=3, columns=COLUMNS).double().eval()
    seen = seen_by(network, 4 * COLUMNS + 3)
    assert seen[:3].all()  # wider than the image, two rows above and farther
    assert seen[4].tolist() == [False, True, True, False, False, False]


@pytest.mark.parametrize("network", [PixelCNN, RowLSTM])
def test_a_tap_beyond_a_row_raises_an_error(network: type) -> None:
    with pytest.raises(ValueError, match="depth must be at least 1"):
        network(WIDTH, depth=0)
    with pytest.raises(ValueError, match="columns=3 must exceed the kernel's columns to the right, 3"):
        network(WIDTH, columns=3)


@pytest.mark.parametrize(
    ("make", "kernels", "message"),
    [
        (PixelCNN, {"kernel": 4}, "kernel=4: expected an odd number of pixels, at least 1"),
        (RowLSTM, {"kernel": 4}, "kernel=4: expected an odd number of pixels, at least 1"),
        (PixelCNN, {"first_kernel": 1}, "kernel=1: expected an odd number of pixels, at least 3"),
        (RowLSTM, {"kernel": 5, "columns": 2}, "columns=2 must exceed the kernel's columns to the right, 2"),
    ],
)
def test_an_invalid_kernel_raises_an_error(make: type, kernels: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(width=8, **{"first_kernel": 3, **kernels})
