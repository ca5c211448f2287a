"""Reproduces `emoji-tiny`, the small Stable-Diffusion-shaped base model that ships with loragate.

The folder reads in the order in which things happen: `catalogue` (which emoji exist and who may
see them), `render` (pictures and captions), `train_vae`, `train_unet` (text encoder and denoiser),
`assemble` (the fp16 pipeline), `train_lora` (adapters, the way users train them) and `sheet`
(contact sheets). `python -m emoji_tiny --help` lists the commands.
"""
