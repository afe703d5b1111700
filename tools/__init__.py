"""Commands for developers: set up, check, test and try the pack. Using it needs none of them."""
