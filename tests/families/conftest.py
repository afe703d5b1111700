"""Made-up checkpoints: the fixtures of the tests of files."""

from ..weights.conftest import published, published_file
