"""Local attention inside ControlNets."""
