"""Guards for image servers; each module needs the library that it is named after."""
