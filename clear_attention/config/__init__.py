"""Settings of commands: TOML files as dataclasses, their bounds, lists of prompts."""
