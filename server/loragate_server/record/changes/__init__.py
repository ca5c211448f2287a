"""Changes of the concept library that people make in the browser, and their record."""
