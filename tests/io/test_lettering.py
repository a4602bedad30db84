import torch

from maquette.io.lettering import with_text


def test_text_is_white_on_black_in_the_corner_and_nowhere_else():
    grey = torch.full((40, 60, 3), 128 / 255)
    lettered = with_text(grey, "A")
    assert lettered[:16, :16].max() > 0.9 and lettered[:16, :16].min() == 0.0
    torch.testing.assert_close(lettered[20:], grey[20:])
