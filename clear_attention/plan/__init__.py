"""What a run costs, before it: operations, seconds, memory, and a verdict."""
