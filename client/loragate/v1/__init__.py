"""Generated wire types and stubs of the API `loragate.v1`; `loragate` itself is easier to use."""
