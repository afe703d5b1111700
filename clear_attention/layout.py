"""Where text, image grid and further tokens lie in the joint sequence."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TokenLayout:
    """Order of the tokens in one joint attention call: text, then the grid row by row, then extra.

    Args:
        text: Number of text tokens, 0 or more.
        height: Rows of the image grid, in tokens.
        width: Columns of the image grid, in tokens.
        extra: Tokens behind the grid that see everything and that everyone sees, such as the
            reference pictures of an edit model.

    Raises:
        ValueError: A count is negative, fractional, or the grid is empty.
    """

    text: int
    height: int
    width: int
    extra: int = 0

    def __post_init__(self) -> None:
        for name, least in (("text", 0), ("height", 1), ("width", 1), ("extra", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(
                    f"TokenLayout.{name} must be an integer of at least {least}, got {value!r}."
                )

    @property
    def image(self) -> int:
        """Number of image tokens."""
        return self.height * self.width

    @property
    def tokens(self) -> int:
        """Length of the joint sequence."""
        return self.text + self.image + self.extra

    @property
    def text_slice(self) -> slice:
        """Positions of the text tokens."""
        return slice(0, self.text)

    @property
    def image_slice(self) -> slice:
        """Positions of the image tokens."""
        return slice(self.text, self.text + self.image)

    @property
    def extra_slice(self) -> slice:
        """Positions of the extra tokens."""
        return slice(self.text + self.image, self.tokens)
