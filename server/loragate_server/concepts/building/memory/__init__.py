"""How much memory gradients will take, told before they are made."""
