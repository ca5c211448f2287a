"""From the requests of image servers to audit requests: which adapters does this one load?"""
