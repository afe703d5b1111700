"""Distillation: turn a pre-trained diffusion transformer's attention into CLEAR (arXiv 2412.16112).

The teacher and the student are one model. Its weights stay frozen; the student is the difference
that training adds to the attention projections, and a window. What knows the model itself is the
`Denoiser` that a run is given; nothing here imports ComfyUI.
"""
