"""How the gradients of one concept at one time are made: the dense way and the lean one."""
