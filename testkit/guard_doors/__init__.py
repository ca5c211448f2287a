"""Every known way to change what a diffusers pipeline draws, tried on a guarded tiny one."""
