"""One picture on several devices, exactly: each computes a band of the grid's rows or columns."""
