"""CLEAR Parallel: one picture on several devices of this machine, or on several machines."""
