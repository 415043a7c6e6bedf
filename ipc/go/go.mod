module peat.internal/peat-node.git/ipc/go

go 1.23

require google.golang.org/protobuf v1.36.12
