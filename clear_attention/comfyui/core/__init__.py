"""The patch that every node stands on: settings, geometry, override, report."""
