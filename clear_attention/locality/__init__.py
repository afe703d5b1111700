"""How local a model's attention is: measured, as a table, as figures; and a window, drawn."""
