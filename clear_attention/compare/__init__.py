"""How far a model's velocities and pictures are from its full attention's, and what that costs."""
