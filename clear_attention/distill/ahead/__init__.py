"""What a run will take, worked out before it begins: memory, time, disk."""
