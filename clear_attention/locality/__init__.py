"""How local a model's attention is: measured, as a table, as figures; and the drawing of a window."""
