"""Pictures that show the pack: the workflows' thumbnails and the README's chart."""
