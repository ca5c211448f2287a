module loragate.dev/go

go 1.19
