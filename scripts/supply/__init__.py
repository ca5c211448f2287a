"""What is shipped: of which packages it is made, how it is built, and from where it comes."""
