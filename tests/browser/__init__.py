"""Tests in ComfyUI's own page; a package, so that they share a tab that is closed behind them."""
